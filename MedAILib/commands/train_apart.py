"""Trains in a process of its own, for a window that must not wait: `python -m MedAILib.commands.train_apart REQUEST`.

REQUEST is a JSON object; see `MedAILib.gui.fine_tuning`. How it goes is said as `MedAILib.watched` has it. The model is
trained beside its data (`models/NAME`) and then joins the store, where the window finds it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from MedAILib.cli import build_parser
from MedAILib.commands.train import run_train
from MedAILib.progress import Progress
from MedAILib.store.adding import add_model, require_free_name
from MedAILib.store.arrival import Wishes, find_source
from MedAILib.training.checkpoint import OtherTrainingError
from MedAILib.watched import watched


def train_and_add(request: dict[str, Any], progress: Progress) -> str:
    """Train a segmentation model as a request has it, and add it to the store.

    Raises:
        MedAIError: the name is taken, or the data or an option is at fault; nothing is trained then.
        Cancelled: by `progress`; a request to resume goes on from the last whole epoch. One to resume "auto" does so
            where a training of the same name, data and settings was stopped, and else begins anew.
    """
    name, data = str(request["name"]), Path(request["data"])
    require_free_name(name)
    bundle = data / "models" / name
    words = ["train", "segmentation", "--data", str(data), "-o", str(bundle), "--device", str(request["device"])]
    words += ["--initial", str(request["initial"])] if request["initial"] else []
    words += ["--epochs", str(int(request["epochs"]))] if request["epochs"] else []
    words += [word for pair in request["settings"] for word in ("--set", str(pair))]
    stopped = bundle.with_name(f"{name}.training").is_dir()
    if request["resume"] == "auto" and stopped:
        _go_on_or_anew(words, name, progress)
    else:
        _train([*words, "--resume"] if request["resume"] is True else words, progress)
    return add_model(find_source(str(bundle)), Wishes(name=name), progress).record.name


def _go_on_or_anew(words: Sequence[str], name: str, progress: Progress) -> None:
    """Go on with a training that was stopped, unless it was another one: of fewer images, or with other settings."""
    try:
        _train([*words, "--resume"], progress)
    except OtherTrainingError:
        progress.warn(f"The training of {name} that was stopped had other images or settings; it begins anew.")
        _train(words, progress)


def _train(words: Sequence[str], progress: Progress) -> None:
    run_train(build_parser().parse_args([*words, "--quiet"]), progress)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    sys.stdout = sys.stderr  # what libraries print is not for the window
    watched(lambda progress: train_and_add(asked, progress))
