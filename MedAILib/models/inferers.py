"""The inferers that a bundle's config may name, translated to how our windows are laid."""

from dataclasses import dataclass

from MedAILib.config_values import Component
from MedAILib.errors import SpecError
from MedAILib.inference.window import Windows
from MedAILib.models.arguments import Arguments, sense, size, three

PADDING_MODES = ("constant", "reflect", "replicate", "circular")
MODULES = ("", "monai.inferers", "monai.inferers.inferer")
# VISTA3D's own (see `bundle_needs.is_prompted`).
PROMPTED = "scripts.inferer.Vista3dInferer"
# Both lay the same windows; the second only looks for memory first.
SLIDING = ("SlidingWindowInferer", "SlidingWindowInfererAdapt")


@dataclass(frozen=True)
class Laying:
    """How a network is laid over an image.

    Args:
        windows: its windows.
        slice_axis: the working axis along which a network of two axes sees slice after slice; None for one of three.
        by_slice: an image is a slice: a volume's are prepared, run and restored each by itself.
    """

    windows: Windows
    slice_axis: int | None = None
    by_slice: bool = False


def laying(inferer: Component, axes: int, prompted: bool = False) -> Laying:
    """Translate a bundle's inferer for a network of two or three spatial axes, or for VISTA3D, which is `prompted`.

    Raises:
        SpecError: an inferer or an argument that is not supported.
    """
    if prompted and inferer.target == PROMPTED:
        told = {key: value for key, value in inferer.arguments.items() if key not in ("use_point_window", "use_cfp")}
        inferer = Component("SlidingWindowInferer", told | {"mode": "gaussian"})
    known_one = inferer.target.rpartition(".")[0] in MODULES
    if not known_one or inferer.name not in (*SLIDING, "SliceInferer", "SimpleInferer"):
        raise SpecError(f"The model's inferer '{inferer.target}' is not one that MedAI does.")
    if axes not in (2, 3) or (inferer.name == "SliceInferer" and axes != 2):
        raise SpecError(f"The model's network of {axes} axes is run by '{inferer.target}', which MedAI does not do.")
    arguments = Arguments(inferer)
    by_slice = axes == 2 and inferer.name != "SliceInferer"
    if inferer.name == "SimpleInferer":
        arguments.finish()
        return Laying(Windows(), 2 if by_slice else None, by_slice)
    with sense(inferer):
        through = int(arguments.take("spatial_dim", 0)) if inferer.name == "SliceInferer" else 2
        if not 0 <= through <= 2:
            raise SpecError(f"The model's '{inferer.target}' slices along axis {through}; there are 0, 1 and 2.")
        windows = _windows(arguments, axes, through)
    return Laying(windows, through if axes == 2 else None, by_slice)


def _windows(arguments: Arguments, axes: int, through: int) -> Windows:
    """Windows; those of a network of two axes are one voxel thick along the axis `through`."""

    def placed(values: tuple[float, ...]) -> tuple[float, ...]:
        return values if axes == 3 else (*values[:through], values[2], *values[through:2])

    roi, mode = arguments.take("roi_size", None), str(arguments.take("mode", "constant"))
    windows = Windows(
        roi=None if roi is None else tuple(int(n) for n in placed(three(roi, size, axes, 1))),
        overlap=placed(three(arguments.take("overlap", 0.25), float, axes, 0.0)),
        gaussian=mode == "gaussian",
        sigma_scale=placed(three(arguments.take("sigma_scale", 0.125), float, axes, 0.125)),
        padding_mode=str(arguments.take("padding_mode", "constant")),
        padding_value=float(arguments.take("cval", 0.0)),
    )
    # How the work is dealt out, which changes no value.
    arguments.drop("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh")
    arguments.drop("buffer_steps", "buffer_dim")
    arguments.finish()
    if mode not in ("constant", "gaussian") or windows.padding_mode not in PADDING_MODES:
        raise SpecError(f"The model's inferer works by '{mode}' and '{windows.padding_mode}', which MedAI does not do.")
    if not all(0 <= part < 1 for part in windows.overlap) or min(windows.sigma_scale) <= 0:
        raise SpecError(f"The model's inferer has windows that overlap by {windows.overlap}, which is not possible.")
    return windows
