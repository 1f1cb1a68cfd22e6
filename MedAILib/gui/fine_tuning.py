"""A model that goes on learning from what the user corrected, by a process of its own."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from MedAILib.errors import InputError
from MedAILib.gui.getting import Apart
from MedAILib.store.adding import require_free_name
from MedAILib.store.find import find_model


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained.

    Args:
        data: the folder of the training set.
        name: by which the new model will be found.
        initial: the model that it starts from, a name or a path; empty to plan a network from the data and start anew.
        epochs: how often it sees the data; 0 for as many as are planned.
        device: where it computes.
        resume: go on where a training of this name and data was stopped; "auto": if there is one, else begin anew.
        settings: "key=value", as `medai train --set` takes them.
    """

    data: str
    name: str
    initial: str = ""
    epochs: int = 0
    device: str = "auto"
    resume: bool | Literal["auto"] = False
    settings: Sequence[str] = ()


def training_request(folder, name, model="", *, epochs=0, device="auto", resume=False, settings=()) -> TrainingRequest:
    """What is to be trained, from arguments as a user gives them.

    Raises:
        InputError: no folder or no name was given, the name is taken, or there is no such model.
    """
    if not str(folder) or not name:
        raise InputError("A folder with a training set and a name for the new model are wanted; give both.")
    require_free_name(name)
    initial = str(find_model(model)) if model else ""
    return TrainingRequest(str(folder), name, initial, epochs, device, resume, tuple(settings))


class FineTuning(Apart):
    """Stands where a `Job` does; what was trained when it was cancelled is kept, to be resumed."""

    def __init__(self, request: TrainingRequest) -> None:
        argument = json.dumps(asdict(request))
        failed = "The training could not be started ({error}); restart Slicer and try again."
        super().__init__("MedAILib.commands.train_apart", argument, "Training", failed)
