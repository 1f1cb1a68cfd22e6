"""What a bundle's description says of a classifier: its classes and how they are decided."""

from typing import Any

from MedAILib.bundle_plan import BundlePlan
from MedAILib.config_values import Component
from MedAILib.errors import SpecError
from MedAILib.results import Code
from MedAILib.spec import Classes, Covariate, OutOfDistribution

_DEFAULT_THRESHOLDS = {"multiclass": 0.0, "multilabel": 0.5, "ordinal": 0.5}


def read_classes(plan: BundlePlan, outputs: dict[str, Any]) -> Classes:
    """The classes of a bundle, from its metadata's `outputs` and its own entry "medai".

    "medai" may hold "classification": kind, classes, thresholds (by class name), temperature, unsure_below,
    out_of_distribution (method, threshold, validated_on), covariates (name, mean, sd), sequence, frames, codes (by
    class name: scheme, value, meaning), labels (by class name: what data call it), offsets (by class name).

    Raises:
        SpecError: a list of classes of the wrong length; entries that make no sense.
    """
    own = (plan.metadata.get("medai") or {}).get("classification") or {}
    count = int(outputs["num_channels"])
    kind = own.get("kind") or _kind(plan.postprocessing, count)
    names = _names(plan, outputs, own, kind)
    thresholds = own.get("thresholds") or {}
    codes = own.get("codes") or {}
    offsets = own.get("offsets") or {}
    labels = own.get("labels") or {}
    for what, told in (("threshold", thresholds), ("code", codes), ("label", labels), ("offset", offsets)):
        unknown = sorted(set(told) - set(names))
        if unknown:
            raise SpecError(
                f"The model {plan.folder.name} has a {what} for '{unknown[0]}', which is none of its classes."
            )
    strange = own.get("out_of_distribution")
    try:
        return Classes(
            names,
            kind,
            _dimensions(plan),
            _thresholds(names, kind, thresholds),
            float(own.get("temperature", 1.0)),
            float(own.get("unsure_below", 0.0)),
            None if strange is None else OutOfDistribution(**strange),
            tuple(Covariate(**entry) for entry in own.get("covariates", ())),
            bool(own.get("sequence", False)),
            int(own.get("frames", 0)),
            tuple(Code(*codes[name]) if name in codes else None for name in names) if codes else (),
            tuple(tuple(str(x) for x in labels.get(name, [name])) for name in names) if labels else (),
            tuple(float(offsets.get(name, 0.0)) for name in names) if offsets else (),
        )
    except SpecError as error:
        raise SpecError(f"The model {plan.folder.name} contradicts itself: {error}") from error


def _dimensions(plan: BundlePlan) -> int:
    """2 or 3: as the network says, also inside of one network of another; else as many sizes as the metadata has."""
    arguments = plan.network.arguments
    inner = next((value.arguments for value in arguments.values() if isinstance(value, Component)), {})
    told = next((side[key] for side in (arguments, inner) for key in ("spatial_dims", "dim") if key in side), None)
    if told is not None:
        return int(told)
    shape = next(iter(plan.metadata["network_data_format"]["inputs"].values())).get("spatial_shape") or ()
    return len(shape) if len(shape) in (2, 3) else 2 if "torchvision" in plan.network.name.lower() else 3


def _kind(postprocessing: tuple[Component, ...], count: int) -> str:
    """What the steps after the network say: independent channels by sigmoid or a threshold, else one class of many."""
    named = {step.name.removesuffix("d").removesuffix("D"): step.arguments for step in postprocessing}
    largest = bool(named.get("AsDiscrete", {}).get("argmax"))
    each = bool(named.get("Activations", {}).get("sigmoid")) or named.get("AsDiscrete", {}).get("threshold") is not None
    if count > 1 and each and not largest:
        return "multilabel"
    return "binary" if count <= 2 else "multiclass"


def _thresholds(names: tuple[str, ...], kind: str, told: dict[str, Any]) -> tuple[float, ...]:
    """One for each class; of two that exclude each other, the first has what the second leaves."""
    if kind == "binary" and len(names) == 2:
        second = float(told.get(names[1], 1 - float(told.get(names[0], 0.5))))
        return 1 - second, second
    default = _DEFAULT_THRESHOLDS.get(kind, 0.0)
    return tuple(float(told.get(name, default)) for name in names)


def _names(plan: BundlePlan, outputs: dict[str, Any], own: dict[str, Any], kind: str) -> tuple[str, ...]:
    """One name for each class.

    One output of two classes, and the steps between ordered classes, are one less than the classes.
    """
    count = int(outputs["num_channels"])
    wanted = count + (kind == "ordinal" or (kind == "binary" and count == 1))
    if "classes" in own:
        names = tuple(str(name) for name in own["classes"])
    else:
        told = {str(key): str(name) for key, name in (outputs.get("channel_def") or {}).items()}
        if not told:
            names = tuple(f"class {n}" for n in range(wanted))
        elif set(told) != {str(n) for n in range(len(told))}:
            raise SpecError(f"The model {plan.folder.name} numbers its classes {', '.join(told)}, not from 0 on.")
        else:
            names = tuple(told[str(n)] for n in range(len(told)))
        if wanted == 2 and len(names) == 1:
            names = (f"not {names[0]}", names[0])
    if len(names) != wanted:
        raise SpecError(
            f"The model {plan.folder.name} contradicts itself: it names {len(names)} classes ({', '.join(names)}), but "
            f"its output is for {wanted}."
        )
    return names
