"""A worker process as users have it, with all that it does with models watched.

Usage: python watched.py LOG MODELS

Each forbidden event becomes a line of the file LOG; see `watch`.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from watch import Watch

from MedAILib.worker.server import Library, find_any, main, open_any
from MedAILib.worker.warm import Model

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Watched:
    """Opens and runs models as ever, armed."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def open(self, source: Path, device: str, trust_code: str) -> Model:
        import MedAILib.models.open  # noqa: F401  PyTorch's own import does much of what is watched for

        with self.watch.watching():
            if source.name == "control":  # shows that the watch would hear
                os.system("true")
            return open_any(source, device, trust_code)


if __name__ == "__main__":
    hook = Watch(
        lambda words: os.write(LOG, f"{words}\n".encode()) and None, Path(sys.argv[2]), (Path(tempfile.gettempdir()),)
    )
    main(Library(Watched(hook).open, find_any))
