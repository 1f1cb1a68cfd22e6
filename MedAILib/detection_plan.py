"""What a detection bundle's config says of its detector: anchors, windows, which boxes are kept; nothing is executed.

The Model Zoo's detection bundles build MONAI's `RetinaNetDetector` and set it up by calls of its methods in a list of
expressions, here read as data. Their inferer comes as a script; what it does is known: it hands the image to the
detector, in windows where the image is as large as one or larger.
"""

import re
from dataclasses import dataclass
from typing import Any

from MedAILib.config import Config
from MedAILib.config_expression import Budget, evaluate
from MedAILib.config_values import Component, known
from MedAILib.errors import SpecError

DETECTOR = "RetinaNetDetector"
INFERER = "scripts.detection_inferer.RetinaNetInferer"
# Of `torchvision.models.detection`; they are detectors by themselves, with no other around them.
FASTER_RCNN = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
_CALL = re.compile(r"\$\s*@detector\.(\w+)\((.*)\)\s*", re.DOTALL)
# What a method is given, by name, and what it is without it (MONAI 1.6.1); arguments that matter for training alone or
# that deal out the work are taken and left.
_SELECTION = {
    "score_thresh": 0.05,
    "topk_candidates_per_level": 1000,
    "nms_thresh": 0.5,
    "detections_per_img": 300,
    "apply_sigmoid": True,
}
_WINDOWS = {"roi_size": None, "overlap": 0.5, "mode": "constant", "sigma_scale": 0.125, "cval": 0.0}
_DEALING = ("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "padding_mode")
# Methods that set up training.
_TRAINING = frozenset(
    (
        "set_target_keys",
        "set_cls_loss",
        "set_box_regression_loss",
        "set_regular_matcher",
        "set_atss_matcher",
        "set_hard_negative_sampler",
        "set_balanced_sampler",
    )
)


@dataclass(frozen=True)
class DetectionPlan:
    """How a detector works, after its network.

    Args:
        anchors: what makes the boxes that it starts from.
        size_divisible: the image is padded at its ends to multiples of this, along each axis.
        score_threshold: boxes that are less sure are left out.
        candidates: at most so many of each level of the network's output, the surest, are looked at.
        overlap_limit: of boxes that overlap by more (intersection over union) the surest stays alone.
        most: at most so many boxes of an image, the surest, are kept.
        sigmoid: from scores to probabilities.
        window: the window's size, voxels; None for the image whole.
        window_overlap: the share by which windows overlap.
        gaussian, sigma_scale, padding_value: of the windows.
        always_windows: lay windows also over an image that is smaller than one.
        coder_weights: by which the network's corrections of a box are divided; empty for 1.
    """

    anchors: Component
    size_divisible: tuple[int, ...] | int = 1
    score_threshold: float = 0.05
    candidates: int = 1000
    overlap_limit: float = 0.5
    most: int = 300
    sigmoid: bool = True
    window: tuple[int, ...] | None = None
    window_overlap: float = 0.5
    gaussian: bool = False
    sigma_scale: float = 0.125
    padding_value: float = 0.0
    always_windows: bool = False
    coder_weights: tuple[float, ...] = ()


def is_faster_rcnn(network: Component) -> bool:
    """Whether a network is one of torchvision's Faster R-CNN detectors, named as torchvision names it."""
    return network.target in {f"torchvision.models.detection.{name}" for name in FASTER_RCNN}


def read_detection(config: Config) -> DetectionPlan | None:
    """The plan that a config describes; None where it has no detector.

    Raises:
        SpecError: a detector of another kind, or set up in a way that is not known.
    """
    if "detector" not in config:
        return None
    detector = config.get("detector")
    if not isinstance(detector, Component) or detector.name != DETECTOR:
        raise SpecError(f"{config.source}: the detector is none that MedAI runs; it runs MONAI's {DETECTOR}.")
    anchors = detector.arguments.get("anchor_generator")
    if not isinstance(anchors, Component):
        raise SpecError(f"{config.source}: the detector's 'anchor_generator' describes no anchors.")
    selection, windows = dict(_SELECTION), dict(_WINDOWS)
    weights: tuple[float, ...] = ()
    for method, told in _calls(config):
        if method == "set_box_selector_parameters":
            selection |= _only(told, _SELECTION, (), method, config)
        elif method == "set_sliding_window_inferer":
            windows |= _only(told, _WINDOWS, _DEALING, method, config)
        elif method == "set_box_coder_weights":
            weights = tuple(float(weight) for weight in told.get("weights", ()))
        elif method not in _TRAINING:
            raise SpecError(f"{config.source}: the detector is set up by '{method}', which MedAI does not know.")
    try:
        return _plan(config, detector, anchors, selection, windows, weights)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(f"{config.source}: the detector's settings make no sense: {error}.") from error


def _plan(
    config: Config,
    detector: Component,
    anchors: Component,
    selection: dict[str, Any],
    windows: dict[str, Any],
    weights: tuple[float, ...],
) -> DetectionPlan:
    divisible = known(detector.arguments.get("size_divisible", 1))
    inferer = config.get("inferer") if "inferer" in config else None
    forced = known(inferer.arguments.get("force_sliding_window", False)) if isinstance(inferer, Component) else False
    if windows["mode"] not in ("constant", "gaussian"):
        raise SpecError(f"{config.source}: the detector's windows are weighted by '{windows['mode']}'.")
    plan = DetectionPlan(
        anchors,
        int(divisible) if isinstance(divisible, (int, float)) else tuple(int(n) for n in divisible),
        float(selection["score_thresh"]),
        int(selection["topk_candidates_per_level"]),
        float(selection["nms_thresh"]),
        int(selection["detections_per_img"]),
        bool(selection["apply_sigmoid"]),
        None if windows["roi_size"] is None else tuple(int(n) for n in windows["roi_size"]),
        float(windows["overlap"]),
        windows["mode"] == "gaussian",
        float(windows["sigma_scale"]),
        float(windows["cval"]),
        bool(forced),
        weights,
    )
    sizes = (plan.size_divisible,) if isinstance(plan.size_divisible, int) else plan.size_divisible
    if min(sizes) < 1 or plan.candidates < 1 or plan.most < 1 or min(plan.window or (1,)) < 1:
        raise SpecError(f"{config.source}: the detector's sizes and numbers are not all above 0.")
    if not (0 <= plan.score_threshold <= 1 and 0 <= plan.overlap_limit <= 1 and 0 <= plan.window_overlap < 1):
        raise SpecError(f"{config.source}: the detector's thresholds and overlaps are not all from 0 to 1.")
    return plan


def _calls(config: Config) -> list[tuple[str, dict[str, Any]]]:
    """The calls of the detector's methods in `detector_ops`: their names, and what they are given by name."""
    lines = config.raw("detector_ops") if "detector_ops" in config else []
    found: list[tuple[str, dict[str, Any]]] = []
    for line in lines if isinstance(lines, list) else [lines]:
        match = _CALL.fullmatch(str(line))
        if match is None:
            raise SpecError(f"{config.source}: '{str(line)[:80]}' is no call that sets up the detector.")
        if match[1] in _TRAINING:
            found.append((match[1], {}))
            continue
        told = evaluate(f"monai.{match[1]}({match[2]})", config.get, config.source, Budget())
        if told.positional:
            raise SpecError(f"{config.source}: '{match[1]}' is given numbers without names, which MedAI does not read.")
        found.append((match[1], known(told.arguments)))
    return found


def _only(
    told: dict[str, Any], wanted: dict[str, Any], left: tuple[str, ...], method: str, config: Config
) -> dict[str, Any]:
    unknown = sorted(set(told) - set(wanted) - set(left))
    if unknown:
        raise SpecError(f"{config.source}: '{method}' has '{unknown[0]}', which MedAI does not know.")
    return {key: value for key, value in told.items() if key in wanted}
