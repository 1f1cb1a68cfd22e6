"""A MONAI bundle that detects, as a model that runs: a RetinaNet and MONAI's detector around it."""

from pathlib import Path

import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.utils.anchor_utils import AnchorGenerator, AnchorGeneratorWithAnchorShape

from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import step_name
from MedAILib.config_values import Component, known
from MedAILib.detection_plan import DetectionPlan
from MedAILib.errors import MedAIError, ModelError, SpecError
from MedAILib.inference.detect import BOXES, LABELS, DetectRecipe, find_boxes
from MedAILib.models.box_model import BoxModel, Found, described
from MedAILib.models.networks import network_axes
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume

ANCHORS: dict[str, type[AnchorGenerator]] = {
    "AnchorGenerator": AnchorGenerator,
    "AnchorGeneratorWithAnchorShape": AnchorGeneratorWithAnchorShape,
}
ANCHOR_MODULES = ("", "monai.apps.detection.utils.anchor_utils")
# Post-processing that says in MONAI's words what is done here with every box.
KNOWN_ENDS = (
    "ClipBoxToImage",
    "AffineBoxToWorldCoordinate",
    "ConvertBoxMode",
    "ConvertBoxToStandardMode",
    "DeleteItems",
)


class DetectorModel(BoxModel):
    """A detection model from a MONAI bundle, its network on a device and ready; see `BoxModel`.

    Example::

        model = DetectorModel(Path("lung_nodule_ct_detection"), torch.device("cpu"))
        boxes = model.run(volume, DetectOptions(), Progress()).boxes
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        plan, spec = described(folder)
        if plan.detection is None:
            raise SpecError(spec.obstacle or f"The model {spec.name} is for {spec.task}, not for detection.")
        self._plan = plan.detection
        self._anchors = build_anchors(plan.detection.anchors)
        self._recipe = detect_recipe(plan, spec, plan.detection)
        super().__init__(folder, plan, spec, device)

    def least_score(self, options: DetectOptions) -> float:
        return self._plan.score_threshold if options.score_threshold is None else options.score_threshold

    def find(self, volume: Volume, options: DetectOptions, progress: Progress) -> Found:
        detector = build_detector(self.network, self._anchors, self._plan, options)
        return find_boxes(volume, detector, self._recipe, options, progress)


def detect_recipe(plan: BundlePlan, spec: ModelSpec, detection: DetectionPlan) -> DetectRecipe:
    """What a bundle does around its network, translated.

    Raises:
        SpecError: it asks for what is not done here.
    """
    if spec.obstacle:
        raise SpecError(spec.obstacle)
    require_known_ends(plan, spec)
    axes = network_axes(plan.network)
    if axes not in (2, 3) or (detection.window is not None and len(detection.window) != axes):
        raise SpecError(f"The model {spec.name} has a network of {axes} axes and windows of {detection.window}.")
    divisible = detection.size_divisible
    if isinstance(divisible, int):
        divisible = (divisible,) * axes
    if len(divisible) != axes:
        raise SpecError(f"The model {spec.name} has a network of {axes} axes and sizes divisible by {divisible}.")
    return DetectRecipe(
        preprocessing_steps(plan.preprocessing, axes),
        spec.findings,
        len(spec.channels),
        detection.window,
        detection.window_overlap,
        detection.always_windows,
        divisible,
        axes == 2,
    )


def require_known_ends(plan: BundlePlan, spec: ModelSpec) -> None:
    """Raise `SpecError` where a bundle's post-processing does more with boxes than is done here with every one."""
    for step in plan.postprocessing:
        if step_name(step) not in KNOWN_ENDS:
            raise SpecError(f"The model {spec.name} ends with '{step.target}', which MedAI does not do with boxes.")


def build_anchors(component: Component) -> AnchorGenerator:
    """What makes the boxes that the detector starts from.

    Raises:
        SpecError: anchors of another kind than MONAI's.
        ModelError: MONAI refuses the arguments.
    """
    module, _, name = component.target.rpartition(".")
    if name not in ANCHORS or module not in ANCHOR_MODULES or component.positional:
        raise SpecError(f"The detector's anchors '{component.target}' are none that MedAI makes.")
    try:
        return ANCHORS[name](**known(component.arguments))
    except MedAIError:
        raise
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"The detector's anchors can't be made from the model's description: {_in_short(error)}."
        ) from error


def _in_short(error: Exception) -> str:
    """What MONAI says, on one line."""
    return " ".join(str(error).split()).rstrip(" .")


def build_detector(
    network: torch.nn.Module, anchors: AnchorGenerator, plan: DetectionPlan, options: DetectOptions
) -> RetinaNetDetector:
    """MONAI's detector, set up as the plan and the options say.

    Boxes lie along the image's axes, where the overlap of two boxes is the same in voxels and in mm.

    Raises:
        ModelError: network and anchors don't suit each other.
    """
    try:
        detector = RetinaNetDetector(network, anchors)
    except (ValueError, AttributeError) as error:
        raise ModelError(f"The detector can't be built from the model's description: {_in_short(error)}.") from error
    detector.set_target_keys(box_key=BOXES, label_key=LABELS)
    if plan.coder_weights:
        detector.set_box_coder_weights(plan.coder_weights)  # type: ignore[arg-type]  # MONAI's hint says one number
    detector.set_box_selector_parameters(
        score_thresh=plan.score_threshold if options.score_threshold is None else options.score_threshold,
        topk_candidates_per_level=plan.candidates,
        nms_thresh=plan.overlap_limit if options.overlap_limit is None else options.overlap_limit,
        detections_per_img=plan.most,
        apply_sigmoid=plan.sigmoid,
    )
    if plan.window is not None:
        detector.set_sliding_window_inferer(
            roi_size=plan.window,
            overlap=plan.window_overlap,
            sw_batch_size=1,
            mode="gaussian" if plan.gaussian else "constant",
            sigma_scale=plan.sigma_scale,
            cval=plan.padding_value,
            device="cpu",
        )
    detector.eval()
    return detector
