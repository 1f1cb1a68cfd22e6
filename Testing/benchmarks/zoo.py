"""Which bundles of MONAI's Model Zoo run, and how many voxels agree with stock MONAI: the table of docs/models.md.

python Testing/benchmarks/zoo.py BUNDLES

BUNDLES is a folder with a folder for each of the zoo's bundles, in which are its configs; weights are made up here.
After the bundles in the folder come those that are made in the way of others (`Testing/zoo_made.py`), with an asterisk.
"""

import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo import Row, compared
from zoo_made import MADE, compared_made


def main(folder: Path, names: list[str]) -> None:
    """Print a line for each bundle in a folder, or for those named."""
    warnings.simplefilter("ignore")
    print(
        "| bundle | task | network | runs | voxels that agree | values found | reason |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as work:
        for source in sorted(path for path in folder.iterdir() if (path / "configs").is_dir()):
            if names and source.name not in names:
                continue
            _show(compared(source, Path(work)))
        for name in MADE:
            if not (folder / name).is_dir() and (not names or name in names):
                _show(replace(compared_made(name, Path(work)), name=f"{name} *"))


def _show(row: Row) -> None:
    agreement = "" if row.agreement is None else f"{100 * row.agreement:.3f} %"
    answers = ["yes" if value else "no" for value in (row.network, row.runs)]
    print("|", " | ".join([row.name, row.task, *answers, agreement, row.classes, row.reason]), "|", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
