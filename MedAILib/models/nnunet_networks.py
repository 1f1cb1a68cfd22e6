"""The networks that nnU-Net's plans may name, and nothing else; classes come from a table, never from their names."""

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet, ResidualUNet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import nn

from MedAILib.config import Component
from MedAILib.errors import ModelError, SpecError

_PACKAGE = "dynamic_network_architectures"
# Class, its own arguments beside `_COMMON`, and the modules it has been in.
NETWORKS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "PlainConvUNet": (PlainConvUNet, ("n_conv_per_stage", "nonlin_first")),
    "ResidualEncoderUNet": (
        ResidualEncoderUNet,
        ("n_blocks_per_stage", "block", "bottleneck_channels", "stem_channels"),
    ),
    "ResidualUNet": (ResidualUNet, ("n_blocks_per_stage", "block", "bottleneck_channels", "stem_channels")),
}
_MODULES = ("", f"{_PACKAGE}.architectures.unet", f"{_PACKAGE}.architectures.residual_unet")
_COMMON = (
    "conv_bias",
    "conv_op",
    "deep_supervision",
    "dropout_op",
    "dropout_op_kwargs",
    "features_per_stage",
    "kernel_sizes",
    "n_conv_per_stage_decoder",
    "n_stages",
    "nonlin",
    "nonlin_kwargs",
    "norm_op",
    "norm_op_kwargs",
    "strides",
)
_CLASSES: dict[str, dict[str, type[nn.Module]]] = {
    "conv_op": {"Conv2d": nn.Conv2d, "Conv3d": nn.Conv3d},
    "norm_op": {
        "BatchNorm2d": nn.BatchNorm2d,
        "BatchNorm3d": nn.BatchNorm3d,
        "InstanceNorm2d": nn.InstanceNorm2d,
        "InstanceNorm3d": nn.InstanceNorm3d,
    },
    "dropout_op": {"Dropout": nn.Dropout, "Dropout2d": nn.Dropout2d, "Dropout3d": nn.Dropout3d},
    "nonlin": {
        "ELU": nn.ELU,
        "GELU": nn.GELU,
        "LeakyReLU": nn.LeakyReLU,
        "Mish": nn.Mish,
        "PReLU": nn.PReLU,
        "ReLU": nn.ReLU,
        "SiLU": nn.SiLU,
    },
    "block": {"BasicBlockD": BasicBlockD, "BottleneckD": BottleneckD},
}
_SETTINGS = {
    "norm_op_kwargs": ("affine", "eps", "momentum", "track_running_stats"),
    "dropout_op_kwargs": ("inplace", "p"),
    "nonlin_kwargs": ("alpha", "approximate", "inplace", "negative_slope", "num_parameters"),
}
MOST_STAGES = 16
LARGEST_NUMBER = 65536


def build_nnunet(network: Component, inputs: int, outputs: int, dimensions: int, batch_norm: bool = False) -> nn.Module:
    """Construct the network of a plan, for inference.

    Args:
        network: class and arguments of the plan.
        inputs: number of its input channels.
        outputs: number of its outputs.
        dimensions: axes of the plan's windows, 2 or 3.
        batch_norm: in place of the plan's normalisation, as nnU-Net's trainer "nnUNetTrainerBN" has it.

    Raises:
        SpecError: the architecture or an argument is not on the list.
        ModelError: the arguments don't make a network.
    """
    module, _, name = network.target.rpartition(".")
    if name not in NETWORKS or module not in _MODULES:
        raise SpecError(
            f"The nnU-Net architecture '{network.target}' is not one that MedAI builds; it knows "
            f"{', '.join(sorted(NETWORKS))}."
        )
    kind, own = NETWORKS[name]
    said = dict(network.arguments)
    if batch_norm:
        said |= {"norm_op": f"BatchNorm{dimensions}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    arguments = {key: _argument(key, value, (*_COMMON, *own)) for key, value in said.items()}
    if arguments.get("conv_op") is not _CLASSES["conv_op"][f"Conv{dimensions}d"]:
        raise SpecError(f"The plan's network is not one for its windows of {dimensions} axes.")
    arguments["deep_supervision"] = False
    try:
        return kind(input_channels=inputs, num_classes=outputs, **arguments)
    except (TypeError, ValueError, AssertionError, LookupError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ModelError(f"The network {name} can't be built from the nnU-Net plan: {reason}.") from error


def _argument(key: str, value: Any, known: tuple[str, ...]) -> Any:
    """An argument as the network's class wants it, refused unless it is of the kind that plans have."""
    if key not in known:
        raise SpecError(f"The plan's network has an argument '{key}', which MedAI does not know.")
    if key in _CLASSES:
        return None if value is None and key != "conv_op" else _class(key, value)
    if key in _SETTINGS:
        if value is not None and not isinstance(value, dict):
            raise SpecError(f"The plan's network has '{key}' = {value!r}, where settings by name are wanted.")
        return None if value is None else {name: _setting(key, name, one) for name, one in value.items()}
    if isinstance(value, (bool, type(None))):
        return value
    _require_numbers(key, value, 0)
    return value


def _class(key: str, value: Any) -> type[nn.Module]:
    module, _, name = str(value).rpartition(".")
    if name not in _CLASSES[key] or module.partition(".")[0] not in ("", "torch", _PACKAGE):
        raise SpecError(f"The plan's network has '{key}' = {value!r}, which MedAI does not do.")
    return _CLASSES[key][name]


def _setting(key: str, name: str, value: Any) -> Any:
    plain = (
        value is None or isinstance(value, (bool, int, float)) or (name == "approximate" and value in ("none", "tanh"))
    )
    if name not in _SETTINGS[key] or not plain:
        raise SpecError(f"The plan's network has {key} with '{name}' = {value!r}, which MedAI does not do.")
    return value


def _require_numbers(key: str, value: Any, depth: int) -> None:
    """Raise `SpecError` unless these are small whole numbers, or lists of them one for each stage."""
    if isinstance(value, list) and depth < 2 and len(value) <= MOST_STAGES:
        for item in value:
            _require_numbers(key, item, depth + 1)
        return
    most = MOST_STAGES if key == "n_stages" else 64 if key.startswith(("n_", "kernel", "stride")) else LARGEST_NUMBER
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise SpecError(f"The plan's network has '{key}' = {value!r}, which is not possible.")
