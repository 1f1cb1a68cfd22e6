"""Weights to start from: those of another model, as far as they fit, and stages that keep them."""

from pathlib import Path

from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.models.bundle import weighted_network
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.training.architectures import encoder_stages


def load_initial(network: nn.Module, source: Path, progress: Progress) -> None:
    """Start a network from a model's weights: all that have the same name and shape, others stay as they are.

    Args:
        network: what is going to be trained.
        source: a bundle's folder.
        progress: hears what was not taken over.

    Raises:
        MedAIError: the model can't be read.
        InputError: none of its weights fits.
    """
    given: dict[str, Tensor] = weighted_network(read_any_plan(source)).state_dict()
    own = network.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    if not any(value.ndim > 1 for value in fitting.values()):
        raise InputError(f"No weights of {source} fit the task's network; train with the network that the model has.")
    left = [key for key in own if key not in fitting and not key.startswith(("heads.", "deep_supervision_heads."))]
    if left := [key for key in left if ".super_head." not in key]:
        progress.warn(f"{len(left)} of {len(own)} weights are not from {source}, such as {left[0]}; they start anew.")
    network.load_state_dict(own | fitting)


def freeze_stages(network: nn.Module, name: str, count: int) -> None:
    """Keep the weights of the first `count` stages of a network's encoder as they are.

    Raises:
        InputError: it has fewer stages.
    """
    if count == 0:
        return
    parameters = dict(network.named_parameters(remove_duplicate=False))
    stages = encoder_stages(name, list(parameters))
    if count > len(stages):
        raise InputError(f"The network {name} has {len(stages)} stages to freeze, not {count}; lower frozen_stages.")
    for key, parameter in parameters.items():
        if any(key.startswith(stage) for stage in stages[:count]):
            parameter.requires_grad_(False)
