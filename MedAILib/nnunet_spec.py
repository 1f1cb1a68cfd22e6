"""From an nnU-Net plan to its `ModelSpec`; neither weights nor PyTorch are touched."""

from pathlib import Path

from MedAILib.nnunet_plan import NnunetPlan, read_nnunet_plan
from MedAILib.results import Label
from MedAILib.spec import ModelSpec


def read_nnunet_spec(source: Path) -> ModelSpec:
    """The spec of the nnU-Net model that a path means.

    Raises:
        SpecError: there is none, or its description can't be read or contradicts itself.
    """
    return nnunet_spec(read_nnunet_plan(source), source)


def nnunet_spec(plan: NnunetPlan, source: Path) -> ModelSpec:
    """The spec of a plan; mirroring is what its trainer's name promises until a checkpoint says better.

    Axes are the network's: K, J, I of the image as it lies, or of the image turned to RAS, transposed by the plan.

    Raises:
        SpecError: labels of equal names.
    """
    data, results = plan.dataset, plan.results
    flat = len(plan.patch) == 2
    title = str(data.get("name") or plan.dataset_name or source.resolve().name)
    reference = str(data.get("reference", ""))
    return ModelSpec(
        name=source.resolve().name,
        version=str(data.get("release", "")),
        task="segmentation",
        source=source,
        title=f"{title}, nnU-Net {results.configuration}",
        description=str(data.get("description", "")),
        channels=plan.channels,
        labels=tuple(Label(value, name) for value, name in plan.labels),
        modality="CT" if all(one.scheme == "CTNormalization" for one in plan.normalizations) else "",
        orientation="".join("SAR"[axis] for axis in plan.transpose) if plan.to_ras else None,
        spacing_mm=(0.0, *plan.spacing_mm) if flat else plan.spacing_mm,
        patch=(1, *plan.patch) if flat else plan.patch,
        mirror_axes=() if "NoMirroring" in results.trainer else (1, 2) if flat else (0, 1, 2),
        steps=_steps(plan),
        overlap=0.5,
        licence=str(data.get("licence", data.get("license", ""))),
        references=(reference,) if reference else (),
    )


def _steps(plan: NnunetPlan) -> tuple[str, ...]:
    previous = plan.previous
    folds = ", ".join(path.parent.name for path in plan.results.checkpoints)
    return (
        *([f"Previous stage {previous.results.configuration}, its labels as further channels"] if previous else ()),
        *(["Orientation(axcodes='RAS')"] if plan.to_ras else ()),
        "Crop to voxels other than zero",
        *(f"{channel}: {one.scheme}" for channel, one in zip(plan.channels, plan.normalizations, strict=True)),
        f"Resample to {' x '.join(f'{mm:g}' for mm in plan.spacing_mm)} mm",
        f"{plan.network.name} in windows of {' x '.join(str(n) for n in plan.patch)} voxels, {folds}",
        "Regions, later over earlier" if plan.priority else "The largest output wins",
    )
