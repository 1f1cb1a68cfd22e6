"""An nnU-Net v2 result folder read as a plan: network, preprocessing and labels that it asks for. Nothing is built."""

import math
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedAILib.config import Component, read_json
from MedAILib.errors import SpecError
from MedAILib.nnunet_folder import Results, find_results, results_in

NORMALIZATIONS = (
    "CTNormalization",
    "NoNormalization",
    "RGBTo01Normalization",
    "RescaleTo01Normalization",
    "ZScoreNormalization",
)
RESAMPLINGS = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack")
# Readers that turn images to RAS before the network sees them; all others give voxels as they lie in the file.
REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
# Networks whose own program turns images to RAS before it hands them to nnU-Net; the plans don't say so.
TRAINED_IN_RAS = ("TotalSegmentator",)
LARGEST_PATCH = 4096
LARGEST_LABEL = 65535
LONGEST_INHERITANCE = 16
SHORT = reprlib.Repr()
ANISOTROPY = 3.0


@dataclass(frozen=True)
class Normalization:
    """How one channel's intensities are normalised: nnU-Net's scheme, whether inside the image's nonzero part alone,
    and, for CT, bounds, mean and deviation of the training data.
    """

    scheme: str
    masked: bool
    bounds: tuple[float, float] = (0.0, 0.0)
    mean: float = 0.0
    deviation: float = 1.0


@dataclass(frozen=True)
class Resampling:
    """How arrays are resampled.

    Args:
        function: one of `RESAMPLINGS`.
        order, order_z: of the splines; the latter for an axis of coarse spacing that is resampled on its own.
        separate: whether the coarsest axis is resampled on its own; None where the spacing is anisotropic.
        threshold: from which ratio of the largest to the smallest spacing it is.
    """

    function: str
    order: int = 3
    order_z: int = 0
    separate: bool | None = None
    threshold: float = ANISOTROPY


@dataclass(frozen=True)
class NnunetPlan:
    """What a result folder asks for; axes are the network's, that is K, J, I of the image transposed.

    Args:
        results: the folder, configuration and checkpoints.
        dataset_name, dataset: its name and its `dataset.json`.
        channels: one name per input image, in order.
        labels: value and name of each structure without the background, as they stand in label maps.
        priority: where the network finds regions that overlap: the label value that each of its outputs writes, later
            over earlier; None where the largest output wins.
        regions: the whole regions' names, one for each output; none where the largest output wins.
        outputs: number of the network's outputs.
        stage_values: the label values that a next stage gets as one channel each.
        network: the architecture's class and its arguments, in the new plans' layout.
        spacing_mm, patch: along the network's axes; of two axes for a 2D network.
        transpose: for each of the network's axes the image's (0 for K, 1 for J, 2 for I).
        to_ras: turn the image to RAS first.
        normalizations: one per channel.
        image_resampling, label_resampling, output_resampling: of images, a previous stage's labels, and outputs.
        previous: the plan of the stage whose labels are this one's further channels.
    """

    results: Results
    dataset_name: str
    dataset: dict[str, Any]
    channels: tuple[str, ...]
    labels: tuple[tuple[int, str], ...]
    priority: tuple[int, ...] | None
    regions: tuple[str, ...]
    outputs: int
    stage_values: tuple[int, ...]
    network: Component
    spacing_mm: tuple[float, ...]
    patch: tuple[int, ...]
    transpose: tuple[int, ...]
    to_ras: bool
    normalizations: tuple[Normalization, ...]
    image_resampling: Resampling
    label_resampling: Resampling
    output_resampling: Resampling
    previous: "NnunetPlan | None" = None

    @property
    def inputs(self) -> int:
        """Number of the network's input channels."""
        return len(self.channels) + (0 if self.previous is None else len(self.stage_values))

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each of the network's outputs is the probability of."""
        return self.regions or ("background", *(name for _, name in self.labels))


def read_nnunet_plan(source: Path) -> NnunetPlan:
    """Read the plan of the result folder that a path means (see `find_results`).

    Raises:
        SpecError: a file is missing or unreadable, contradicts itself, or asks for what is not done here; or a
            cascade's previous stage is missing.
    """
    return _read(find_results(source), True)


def _read(results: Results, follow: bool) -> NnunetPlan:
    path = results.folder / "plans.json"
    plans, dataset = read_json(path), read_json(results.folder / "dataset.json")
    configuration = _configuration(plans, results.configuration, path)
    try:
        plan = _plan(results, plans, dataset, configuration)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path} or the dataset.json beside it lacks or garbles an entry: {error!r}.") from error
    stage = configuration.get("previous_stage")
    if stage is None:
        return plan
    if not follow:
        raise SpecError(f"{path}: the stage '{results.configuration}' before a cascade is itself a cascade.")
    folder = results.sibling(str(stage))
    if not (folder / "plans.json").is_file() or not (folder / "dataset.json").is_file():
        raise SpecError(
            f"The cascade in {results.folder} needs the model of its previous stage '{stage}', "
            f"and there is no {folder}."
        )
    previous = _read(results_in(folder), False)
    if previous.labels != plan.labels or len(previous.channels) != len(plan.channels):
        raise SpecError(f"The cascade in {results.folder} and its previous stage in {folder} differ in their labels.")
    return replace(plan, previous=previous)


def _configuration(plans: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A configuration with what it inherits."""
    merged: dict[str, Any] = {}
    for _ in range(LONGEST_INHERITANCE):
        entry = plans["configurations"].get(name)
        if not isinstance(entry, dict):
            raise SpecError(f"{path} has no configuration '{name}'.")
        merged = entry | merged
        if "inherits_from" not in entry:
            return merged
        name = str(entry["inherits_from"])
    raise SpecError(f"{path}: the configuration '{name}' inherits from itself.")


def _plan(
    results: Results, plans: dict[str, Any], dataset: dict[str, Any], configuration: dict[str, Any]
) -> NnunetPlan:
    path = results.folder / "plans.json"
    named = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(named, dict) or not named:
        raise SpecError(f"{results.folder / 'dataset.json'} names no input channel.")
    patch = tuple(_whole(n, "patch_size", path) for n in configuration["patch_size"])
    spacing = tuple(float(mm) for mm in configuration["spacing"])
    transpose = tuple(int(axis) for axis in plans["transpose_forward"])
    dimensions = len(patch)
    if dimensions not in (2, 3) or len(spacing) != dimensions or sorted(transpose) != [0, 1, 2]:
        raise SpecError(f"{path}: patch_size, spacing and transpose_forward are not for one network of 2 or 3 axes.")
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing) or not all(1 <= n <= LARGEST_PATCH for n in patch):
        raise SpecError(f"{path}: the patch_size {list(patch)} or the spacing {list(spacing)} mm is not possible.")
    labels, priority, regions, stage_values = _labels(dataset, results.folder / "dataset.json")
    dataset_name = str(plans.get("dataset_name", ""))
    return NnunetPlan(
        results,
        dataset_name,
        dataset,
        tuple(str(named[key]) for key in sorted(named, key=int)),
        labels,
        priority,
        regions,
        len(regions) or len(labels) + 1,
        stage_values,
        _network(configuration, dimensions, path),
        spacing,
        patch,
        transpose,
        plans.get("image_reader_writer") in REORIENTING or any(name in dataset_name for name in TRAINED_IN_RAS),
        _normalizations(plans, configuration, len(named), path),
        _resampling(configuration, "data", 3, path),
        _resampling(configuration, "seg", 1, path),
        _resampling(configuration, "probabilities", 1, path),
    )


_Labels = tuple[tuple[tuple[int, str], ...], tuple[int, ...] | None, tuple[str, ...], tuple[int, ...]]


def _labels(dataset: dict[str, Any], path: Path) -> _Labels:
    """Labels, priorities, regions, and the values for a next stage (see `NnunetPlan`)."""
    told = dataset["labels"]
    if not isinstance(told, dict):
        raise SpecError(f"{path}: the labels are no object of names and numbers.")
    entries = {str(name): value for name, value in told.items() if name != "ignore"}
    parts = {
        name: [_label(v, name, path) for v in (value if isinstance(value, list) else [value])]
        for name, value in entries.items()
    }
    if parts.get("background") != [0]:
        raise SpecError(f"{path}: the labels need a 'background' of 0.")
    values = sorted({value for part in parts.values() for value in part})
    if values[-1] > LARGEST_LABEL:
        raise SpecError(f"{path}: the label {values[-1]} is larger than {LARGEST_LABEL}.")
    stage_values = tuple(value for value in values if value)
    if any(isinstance(value, list) and len(value) > 1 for value in entries.values()):
        regions = {name: set(part) for name, part in parts.items() if set(part) != {0}}
        order = [int(value) for value in dataset.get("regions_class_order") or ()]
        if len(order) != len(regions) or min(order) < 1 or max(order) > LARGEST_LABEL:
            raise SpecError(
                f"{path}: regions_class_order {order} does not give each of {len(regions)} regions a label."
            )
        return _region_labels(regions, order), tuple(order), tuple(regions), stage_values
    if values != list(range(len(values))):
        raise SpecError(f"{path}: the labels {values} are not consecutive numbers from 0, as nnU-Net wants them.")
    names = {part[0]: name for name, part in reversed(parts.items())}
    return tuple((value, names[value]) for value in stage_values), None, (), stage_values


def _label(value: Any, name: str, path: Path) -> int:
    """A label's number; nnU-Net 1 had the names where its successor has the numbers."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    turned = "; they are nnU-Net 1's, with the numbers in front" if name.isdecimal() else ""
    raise SpecError(f"{path}: the label '{name}' is {SHORT.repr(value)}, which is no whole number{turned}.")


def _region_labels(regions: dict[str, set[int]], order: list[int]) -> tuple[tuple[int, str], ...]:
    """What each label value is left with once later regions have written over it, said in its name."""
    names, labels = list(regions), []
    for number, (name, value) in enumerate(zip(names, order, strict=True)):
        over = [later for later in names[number + 1 :] if regions[later] & regions[name]]
        outer = [one for one in over if not any(regions[one] < regions[other] for other in over)]
        labels.append((value, f"{name} without {' and '.join(outer)}" if outer else name))
    return tuple(sorted(labels))


def _network(configuration: dict[str, Any], dimensions: int, path: Path) -> Component:
    """The architecture in the layout of nnU-Net 2.4 and later; older plans are translated to it."""
    entry = configuration.get("architecture")
    if entry is None:
        return _old_network(configuration, dimensions, path)
    return Component(str(entry["network_class_name"]), dict(entry["arch_kwargs"]))


def _old_network(configuration: dict[str, Any], dimensions: int, path: Path) -> Component:
    if "UNet_class_name" not in configuration:
        raise SpecError(f"{path}: the configuration says nothing of its network's architecture.")
    name = str(configuration["UNet_class_name"])
    blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    stages = len(configuration["n_conv_per_stage_encoder"])
    first, most = int(configuration["UNet_base_num_features"]), int(configuration["unet_max_num_features"])
    return Component(
        name,
        {
            "n_stages": stages,
            "features_per_stage": [min(first * 2**stage, most) for stage in range(min(stages, 32))],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            blocks: configuration["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    )


def _normalizations(
    plans: dict[str, Any], configuration: dict[str, Any], channels: int, path: Path
) -> tuple[Normalization, ...]:
    schemes, masked = configuration["normalization_schemes"], configuration["use_mask_for_norm"]
    for told in (schemes, masked):  # a mask or none, and a scheme, for each
        if not isinstance(told, list) or len(told) != channels:
            count = len(told) if isinstance(told, list) else 0
            raise SpecError(f"{path} normalises {count} channels, but dataset.json names {channels}.")
    old_key = "foreground_intensity_properties_by_modality"
    properties = plans.get("foreground_intensity_properties_per_channel", plans.get(old_key, {}))
    found = []
    for channel, (scheme, mask) in enumerate(zip(schemes, masked, strict=True)):
        if scheme not in NORMALIZATIONS:
            raise SpecError(f"{path}: the normalisation '{scheme}' is not one that MedAI does.")
        if scheme != "CTNormalization":
            found.append(Normalization(str(scheme), bool(mask)))
            continue
        own = properties[str(channel)]
        bounds = (float(own["percentile_00_5"]), float(own["percentile_99_5"]))
        found.append(Normalization(str(scheme), bool(mask), bounds, float(own["mean"]), float(own["std"])))
    return tuple(found)


def _resampling(configuration: dict[str, Any], what: str, order: int, path: Path) -> Resampling:
    function = configuration.get(f"resampling_fn_{what}", RESAMPLINGS[0])
    said = configuration.get(f"resampling_fn_{what}_kwargs") or {}
    if function not in RESAMPLINGS:
        raise SpecError(f"{path}: resampling by '{function}' is not one that MedAI does.")
    separate, linear = said.get("force_separate_z"), function == "resample_torch_fornnunet"
    found = Resampling(
        str(function),
        1 if linear else int(said.get("order", order)),
        int(said.get("order_z", 0)),
        None if separate is None else bool(separate),
        float(said.get("separate_z_anisotropy_threshold", ANISOTROPY)),
    )
    most = 5 if what == "data" else 1
    modes = said.get("mode", "linear"), said.get("aniso_axis_mode", "nearest-exact")
    if not 0 <= found.order <= most or found.order_z != 0 or (linear and modes != ("linear", "nearest-exact")):
        raise SpecError(f"{path}: resampling of {what} as {said} is not done by MedAI.")
    return found


def _whole(value: Any, what: str, path: Path) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise SpecError(f"{path}: {what} has {value!r} where a number of voxels is wanted.")
    return int(value)
