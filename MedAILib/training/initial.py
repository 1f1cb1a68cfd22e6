"""Weights to start from: those of another model, as far as they fit, and stages that keep them."""

from pathlib import Path

from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.models.bundle import weighted_network
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.networks import build_network
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.training.architectures import encoder_stages
from MedAILib.training.task import SegmentationTask


class Quiet(Progress):
    """Keeps quiet of what was said once, before the training."""

    def warn(self, text: str) -> None:
        pass


def first_weights(
    network: nn.Module, initial: Path | None, frozen: tuple[str, int], progress: Progress, inside: str = ""
) -> None:
    """Start a network from a model's weights, where there is one, and keep some as they are.

    Args:
        network: what is going to be trained.
        initial: a bundle's folder.
        frozen: the name of the network, or of the part that is the encoder, and how many first stages of it to keep.
        progress: hears what was not taken over.
        inside: the encoder's place in the network; empty: it is all of it.

    Raises:
        MedAIError: the model can't be read.
        InputError: none of its weights fits; there are fewer stages, or some of their weights are not the model's.
    """
    name, count = frozen
    start = f"{inside}." if inside else ""
    own = [] if initial is None else load_initial(network, initial, progress)
    kept = freeze_stages(network.get_submodule(inside), name, count)
    if random := [key for key in own if key.startswith(tuple(start + stage for stage in kept))]:
        raise InputError(
            f"frozen_stages={count} would keep random weights, since {random[0]} is not from {initial}; lower it, or "
            "train with the network and the channels that the model has."
        )


def load_initial(network: nn.Module, source: Path, progress: Progress) -> list[str]:
    """Start a network from a model's weights: all that have the same name and shape, others stay as they are.

    Args:
        network: what is going to be trained.
        source: a bundle's folder.
        progress: hears what was not taken over.

    Returns:
        names of the weights that are not from the model.

    Raises:
        MedAIError: the model can't be read.
        InputError: none of its weights fits.
    """
    found = weighted_network(read_any_plan(source))
    while isinstance(found, MeanClassifier):  # a mean has no weights of its own: its first network's
        found = found.members[0]
    given: dict[str, Tensor] = found.state_dict()
    own = network.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    if not any(value.ndim > 1 for value in fitting.values()):
        raise InputError(f"No weights of {source} fit the task's network; train with the network that the model has.")
    left = [key for key in own if key not in fitting]
    told = [key for key in left if not key.startswith(("heads.", "deep_supervision_heads."))]
    if told := [key for key in told if ".super_head." not in key]:
        progress.warn(f"{len(told)} of {len(own)} weights are not from {source}, such as {told[0]}; they start anew.")
    network.load_state_dict(own | fitting)
    return left


def require_start(task: SegmentationTask, initial: Path | None, progress: Progress) -> None:
    """See, before anything is trained, that a task's network takes the weights it is to start from.

    Raises:
        MedAIError: the model can't be read, or does not fit; stages are to be frozen that would be random.
    """
    if task.frozen_stages and initial is None:
        raise InputError("frozen_stages keeps the weights of another model; name it with --initial.")
    if initial is not None:
        name = str(task.network["_target_"])
        network = build_network(name, {key: value for key, value in task.network.items() if key != "_target_"})
        first_weights(network, initial, (name, task.frozen_stages), progress)


def freeze_stages(network: nn.Module, name: str, count: int) -> tuple[str, ...]:
    """Keep the weights of the first `count` stages of a network's encoder as they are; tell how their names begin.

    Raises:
        InputError: it has fewer stages.
    """
    if count == 0:
        return ()
    parameters = dict(network.named_parameters(remove_duplicate=False))
    stages = encoder_stages(name, list(parameters))
    if count > len(stages):
        raise InputError(f"The network {name} has {len(stages)} stages to freeze, not {count}; lower frozen_stages.")
    for key, parameter in parameters.items():
        if any(key.startswith(stage) for stage in stages[:count]):
            parameter.requires_grad_(False)
    for key, part in network.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and any(f"{key}.".startswith(s) for s in stages[:count]):
            part.momentum = 0.0  # running means are weights, too
    return tuple(start for stage in stages[:count] for start in stage)
