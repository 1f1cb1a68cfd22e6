"""A classification or findings as one text, and back: what a table node keeps, so that reports can be made later.

Voxels are left out: a saliency is a volume of its own.
"""

import json
from typing import Any

import numpy as np

from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError
from MedAILib.results import Classification, Code, Place
from MedAILib.volume import Geometry

_CLASSIFICATION, _FINDINGS = "classification", "findings"


def text_of(result: "Classification | Detections") -> str:
    """Everything but voxels, as JSON."""
    found: dict[str, Any] = {
        "what": _FINDINGS if isinstance(result, Detections) else _CLASSIFICATION,
        "shape_kji": list(result.geometry.shape_kji),
        "ijk_to_ras": result.geometry.ijk_to_ras.tolist(),
        "classes": list(result.classes),
        "codes": [code and [code.scheme, code.value, code.meaning] for code in result.codes],
        "provenance": result.provenance,
    }
    if isinstance(result, Detections):
        found["threshold"] = result.threshold
        found["boxes"] = [[box.label, box.score, list(box.low_ijk), list(box.high_ijk)] for box in result.boxes]
        return json.dumps(found)
    return json.dumps(
        found
        | {
            "kind": result.kind,
            "probabilities": result.probabilities.tolist(),
            "scores": result.scores.tolist(),
            "thresholds": list(result.thresholds),
            "places": [[x.what, x.box_kji, x.index, x.axis, x.position_mm] for x in result.places],
            "unsure_below": result.unsure_below,
            "strangeness": None if result.strangeness is None else result.strangeness.tolist(),
            "strange_above": result.strange_above,
        }
    )


def result_from(text: str) -> "Classification | Detections":
    """What `text_of` wrote.

    Raises:
        InputError: it is something else, or was changed so that it makes no sense.
    """
    try:
        found = json.loads(text)
        what, (k, j, i) = found["what"], found["shape_kji"]
        geometry = Geometry((int(k), int(j), int(i)), np.array(found["ijk_to_ras"], float))
        classes = tuple(str(name) for name in found["classes"])
        codes = tuple(None if code is None else Code(*(str(part) for part in code)) for code in found["codes"])
        provenance = {str(key): str(value) for key, value in found["provenance"].items()}
        if what == _FINDINGS:
            boxes = tuple(Box(str(x[0]), float(x[1]), _three(x[2]), _three(x[3])) for x in found["boxes"])
            return Detections(boxes, classes, geometry, float(found["threshold"]), provenance, codes)
        if what != _CLASSIFICATION:
            raise ValueError(what)
        strange = found["strangeness"]
        return Classification(
            classes,
            str(found["kind"]),
            np.array(found["probabilities"], float),
            np.array(found["scores"], float),
            tuple(float(x) for x in found["thresholds"]),
            tuple(_place(x) for x in found["places"]),
            geometry,
            float(found["unsure_below"]),
            None if strange is None else np.array(strange, float),
            None if strange is None else float(found["strange_above"]),
            codes=codes,
            provenance=provenance,
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"The result kept in the scene can't be read ({error!r}); run the model again.") from error


def _place(told: Any) -> Place:
    what, box, index, axis, position = told
    return Place(
        str(what),
        tuple((int(first), int(end)) for first, end in box),
        None if index is None else int(index),
        str(axis),
        None if position is None else float(position),
    )


def _three(numbers: Any) -> tuple[float, float, float]:
    i, j, k = (float(x) for x in numbers)
    return i, j, k
