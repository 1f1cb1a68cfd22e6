"""A classification as what scripts, spreadsheets and people read; where it is written is the caller's business."""

from collections.abc import Iterator
from typing import Any

from MedAILib.results import Classification

COLUMNS = ("place", "position_mm", "class", "probability", "threshold", "decision")


def summary(result: Classification) -> dict[str, Any]:
    """What `medai classify --json` prints.

    Of several slices or frames `classes` are the means over them, nothing is `predicted` of the whole, and `rows` has
    each. `predicted` is null where the model is not sure, and a list where classes don't exclude each other, as
    `threshold` is.
    """
    said = result.provenance
    several = len(result.places) > 1
    means = result.probabilities.mean(axis=0)
    found: dict[str, Any] = {
        "model": said.get("model", ""),
        "version": said.get("version", ""),
        "sha256": said.get("sha256", ""),
        "input": said.get("input", ""),
        "classes": _classes(result, means.tolist()),
        "predicted": None if several else _predicted(result, 0),
        "threshold": None if several else threshold_of(result, 0),
    }
    return found | ({"rows": [_row(result, row) for row in range(len(result.places))]} if several else {})


def record(result: Classification) -> dict[str, Any]:
    """Everything but arrays: what `summary` has, each row, how it was decided and how it came about."""
    saliency = result.saliency
    return summary(result) | {
        "kind": result.kind,
        "thresholds": dict(zip(result.classes, result.thresholds, strict=True)),
        "unsure_below": result.unsure_below,
        "out_of_distribution_above": result.strange_above,
        "rows": [_row(result, row) for row in range(len(result.places))],
        "explanation": saliency
        and {
            "class": saliency.class_name,
            "method": saliency.method,
            "scale": saliency.scale,
            "description": saliency.description,
        },
        "provenance": result.provenance,
    }


def table(result: Classification) -> Iterator[tuple[Any, ...]]:
    """A line for each place and class, in the order of `COLUMNS`; the position is None where there is none."""
    for row, place in enumerate(result.places):
        verdict = result.verdict(row)
        for name, p, threshold in zip(result.classes, result.probabilities[row], result.thresholds, strict=True):
            decision = "not sure" if verdict.unsure else "yes" if name in verdict.classes else "no"
            yield place.text, place.position_mm, name, float(p), threshold, decision


def in_words(result: Classification) -> str:
    """Lines for people: what was looked at, what was decided and how surely, by which model."""
    said = result.provenance
    lines = [f"{said.get('model', 'model')} {said.get('version', '')}".strip() + f" on {said.get('input', 'an image')}"]
    for row, place in enumerate(result.places):
        verdict = result.verdict(row)
        numbers = ", ".join(
            f"{name} {p:.1%}" for name, p in zip(result.classes, result.probabilities[row], strict=True)
        )
        start = "" if place.what == "image" else f"{place.text}: "
        lines.append(f"{start}{verdict.text} ({numbers})" + (f" because {verdict.unsure}" if verdict.unsure else ""))
    if result.saliency is not None:
        lines.append(f"Explained for {result.saliency.class_name}: {result.saliency.description}.")
    lines.append("For research use only. Not a medical device.")
    return "\n".join(lines)


def threshold_of(result: Classification, row: int) -> Any:
    """The threshold that decided: of the positive class, of the predicted one, or a list of all labels'."""
    if result.kind == "multilabel":
        return list(result.thresholds)
    if result.kind == "binary":
        return result.thresholds[1]
    chosen = result.verdict(row).classes
    place = result.classes.index(chosen[0]) if chosen else int(result.probabilities[row].argmax())
    return result.thresholds[place]


def _predicted(result: Classification, row: int) -> Any:
    verdict = result.verdict(row)
    if verdict.unsure:
        return None
    return list(verdict.classes) if result.kind == "multilabel" else verdict.classes[0]


def _classes(result: Classification, probabilities: list[float]) -> list[dict[str, Any]]:
    return [{"name": name, "probability": p} for name, p in zip(result.classes, probabilities, strict=True)]


def _row(result: Classification, row: int) -> dict[str, Any]:
    place = result.places[row]
    return {
        "place": place.text,
        "position_mm": place.position_mm,
        "box_kji": [list(side) for side in place.box_kji],
        "classes": _classes(result, result.probabilities[row].tolist()),
        "scores": result.scores[row].tolist(),
        "out_of_distribution": None if result.strangeness is None else float(result.strangeness[row]),
        "predicted": _predicted(result, row),
        "unsure": result.verdict(row).unsure,
    }
