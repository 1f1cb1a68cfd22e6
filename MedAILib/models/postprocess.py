"""The post-processing that a bundle's config may name, translated to a decision and clean-ups; all else is refused."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from MedAILib.bundle_spec import step_name
from MedAILib.config_values import Component, Lambda
from MedAILib.errors import SpecError
from MedAILib.inference.cleanup import Cleanup, FillHoles, KeepLargest, RemoveSmall
from MedAILib.inference.restore import Decision
from MedAILib.models.arguments import Arguments, count, keys_of, sense
from MedAILib.models.steps import WITHOUT_EFFECT
from MedAILib.reviewed_steps import Merged

# Functions that bundles of the Model Zoo spell out at the end, read by a person: they change how labels are written,
# not which voxels are labelled, so that they are left out. Each with what must have been decided before it.
WRITING: dict[str, str] = {
    # Three overlapping structures written into one label map; here each is a layer.
    "lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))": "threshold",
    # The background's channel of a one-hot map left out; here it is no label.
    "lambda x: x[1:]": "onehot",
    "lambda x: x": "",
    # Labels hold no NaN here.
    "lambda x: torch.nan_to_num(x, nan=255)": "argmax",
}
BETWEEN_LABELS = (
    "The model's description interpolates between label values on the way back to the image, which would make labels "
    "that were never found; MedAI takes the nearest label instead."
)


@dataclass(frozen=True)
class Finish:
    """What follows the network.

    Args:
        decision: how its output becomes labels.
        before: clean-ups of the labels on the network's grid, before they come back to the image's.
        after: clean-ups on the image's grid.
        notes: what is done in another way than the description says, for the user.
    """

    decision: Decision
    before: tuple[Cleanup, ...] = ()
    after: tuple[Cleanup, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _State:
    """How far post-processing has come."""

    activation: str | None = None
    activated: bool = False
    threshold: float | None = None
    kind: str = ""
    inverted: bool = False
    first: bool = False
    nearest: bool = False
    on_image: bool = False
    before: list[Cleanup] = field(default_factory=list)
    after: list[Cleanup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def finish_plan(components: tuple[Component, ...], merged: Merged | None = None) -> Finish:
    """Translate a bundle's post-processing, of images that preprocessing `merged` if it did so.

    What is understood is, in this order: Activations (may be absent, or follow Invert), Invert and AsDiscrete in either
    order (Invert may be absent: labels come back to the image's grid all the same), and clean-ups anywhere after
    AsDiscrete.

    Raises:
        SpecError: a transform, an argument or an order of them that is not supported; no decision at all.
    """
    told = [c for c in components if step_name(c) not in WITHOUT_EFFECT and "pred" in keys_of(c, "pred")]
    if merged is not None:  # what it was put together of knows the way back; by itself it has none
        told = [c for c in told if step_name(c) != "Invert" or c.arguments.get("orig_keys") != merged.into]
    names = [step_name(component) for component in told]
    if "AsDiscrete" not in names and "VistaPostTransform" not in names:
        unknown = next((c.target for c in told if step_name(c) not in (*_STEPS, *_CLEANUPS, "Lambda")), None)
        also = f"; it has '{unknown}', which MedAI does not do" if unknown else ""
        raise SpecError(f"The model's post-processing makes no labels: it has no AsDiscrete{also}.")
    state = _State()
    for number, component in enumerate(told):
        with sense(component):
            if names[number] in _CLEANUPS and state.kind:
                waits = not state.inverted and "Invert" in names[number:]
                (state.before if waits else state.after).append(_CLEANUPS[names[number]](Arguments(component, "pred")))
            elif names[number] == "Lambda":
                _leave_out(component, state)
            elif names[number] not in _STEPS and names[number] not in _CLEANUPS:
                raise SpecError(f"The model's post-processing uses '{component.target}', which MedAI does not do.")
            elif names[number] in _CLEANUPS or not _STEPS[names[number]](Arguments(component, "pred"), state):
                order = ", ".join(names)
                raise SpecError(f"The model's post-processing is {order}, which MedAI does not do in this order.")
    decision = Decision(state.activation, state.threshold, state.first, state.nearest)
    if state.on_image and state.activation:
        decision = _decided_on_image(state)
    return Finish(decision, tuple(state.before), tuple(state.after), tuple(state.notes))


def _decided_on_image(state: _State) -> Decision:
    """The decision where the activation comes after the way back: the same, before it, on the network's raw output."""
    if state.kind == "threshold" and state.activation == "sigmoid" and state.threshold is not None:
        if 0 < state.threshold < 1:
            raw = math.log(state.threshold / (1 - state.threshold))
            return Decision(None, raw, state.first, state.nearest, late=True)
    elif state.kind != "threshold" and state.activation == "softmax":
        return Decision(None, None, state.first, state.nearest, late=True)
    raise SpecError("The model's post-processing decides after Invert and Activations in a way that MedAI does not do.")


def activation_plan(components: tuple[Component, ...]) -> str | None:
    """What a classifier's post-processing makes of its output: "softmax", "sigmoid" or None where it does not say.

    How the class is chosen (AsDiscrete) is told by the model's spec, not here.

    Raises:
        SpecError: a transform or an argument that is not supported.
    """
    state = _State()
    for component in components:
        name = step_name(component)
        if name == "Activations":
            with sense(component):
                _activations(Arguments(component, "pred"), state)
        elif name not in (*WITHOUT_EFFECT, "AsDiscrete", "SaveClassification"):
            raise SpecError(f"The model's post-processing uses '{component.target}', which MedAI does not do.")
    return state.activation


def activation_of(component: Component) -> str | None:
    """What an `Activations` asks for: "softmax", "sigmoid" or nothing.

    Raises:
        SpecError: an argument that is not supported.
    """
    state = _State()
    _activations(Arguments(component, "pred"), state)
    return state.activation


def _activations(arguments: Arguments, state: _State) -> bool:
    softmax = arguments.take_for_key("softmax", False)
    sigmoid = arguments.take_for_key("sigmoid", False)
    if arguments.take("other", None) is not None:
        raise SpecError(f"The model's '{arguments.target}' would execute a function, which MedAI does not do.")
    arguments.finish()
    fits = not (state.activated or state.kind)
    state.activation, state.activated = "softmax" if softmax else "sigmoid" if sigmoid else None, True
    state.on_image = state.inverted
    return fits


def _as_discrete(arguments: Arguments, state: _State) -> bool:
    argmax, threshold = arguments.take_for_key("argmax", False), arguments.take_for_key("threshold", None)
    onehot = arguments.take_for_key("to_onehot", None)
    if arguments.take_for_key("rounding", None) is not None or bool(argmax) == (threshold is not None):
        raise SpecError("The model's AsDiscrete wants neither or both of argmax and threshold, or rounds.")
    arguments.drop("dim", "keepdim")
    arguments.finish()
    if isinstance(threshold, (list, tuple)) and len(set(threshold)) == 1:
        threshold = threshold[0]
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float))):
        raise SpecError(f"The model's AsDiscrete has the threshold {threshold!r}, which MedAI does not do.")
    fits = not state.kind
    state.threshold = None if threshold is None else float(threshold)
    state.kind = "threshold" if threshold is not None else "onehot" if onehot else "argmax"
    state.first = False
    return fits


def _vista(arguments: Arguments, state: _State) -> bool:
    """The class of the largest value above 0: an argmax against a background of 0, which the network is given here."""
    arguments.finish()
    fits = not (state.kind or state.activated)
    state.kind = "argmax"
    return fits


def _invert(arguments: Arguments, state: _State) -> bool:
    fits = not state.inverted
    state.inverted, state.nearest = True, bool(arguments.take_for_key("nearest_interp", True))
    if arguments.take_for_key("post_func", None) is not None:
        raise SpecError(f"The model's '{arguments.target}' would execute a function, which MedAI does not do.")
    if state.kind:
        if not state.nearest:
            state.notes.append(BETWEEN_LABELS)
        state.first = state.nearest = True
    return fits


def _leave_out(component: Component, state: _State) -> None:
    told = component.arguments.get("func")
    text = told.text if isinstance(told, Lambda) else repr(told)
    if text not in WRITING or WRITING[text] not in ("", state.kind):
        raise SpecError(f"The model's '{component.target}' would execute '{text}', which MedAI does not do.")


def _labels(arguments: Arguments) -> tuple[int, ...] | None:
    values = arguments.take("applied_labels", None)
    if values is None:
        return None
    return tuple(int(v) for v in values) if isinstance(values, (list, tuple)) else (int(values),)


def _connectivity(arguments: Arguments, default: int) -> int:
    value = arguments.take("connectivity", None)
    if value not in (None, 1, 2, 3):
        raise SpecError(f"The model's '{arguments.target}' has a connectivity of {value!r}; 1, 2 or 3 are possible.")
    return default if value is None else int(value)


def _keep_largest(arguments: Arguments) -> Cleanup:
    step = KeepLargest(
        _labels(arguments),
        _connectivity(arguments, 3),
        count(arguments.take("num_components", 1)),
        bool(arguments.take("independent", True)),
    )
    arguments.drop("is_onehot")
    arguments.finish()
    return step


def _fill_holes(arguments: Arguments) -> Cleanup:
    step = FillHoles(_labels(arguments) or None, _connectivity(arguments, 3))
    arguments.finish()
    return step


def _remove_small(arguments: Arguments) -> Cleanup:
    if arguments.take("pixdim", None) is not None:
        raise SpecError(f"The model's '{arguments.target}' has a voxel size of its own, which MedAI does not do.")
    step = RemoveSmall(
        float(arguments.take("min_size", 64)),
        _connectivity(arguments, 1),
        bool(arguments.take("by_measure", False)),
        bool(arguments.take("independent_channels", True)),
    )
    arguments.finish()
    return step


_STEPS: dict[str, Callable[[Arguments, _State], bool]] = {
    "Activations": _activations,
    "AsDiscrete": _as_discrete,
    "Invert": _invert,
    "VistaPostTransform": _vista,
}
_CLEANUPS: dict[str, Callable[[Arguments], Cleanup]] = {
    "FillHoles": _fill_holes,
    "KeepLargestConnectedComponent": _keep_largest,
    "RemoveSmallObjects": _remove_small,
}
