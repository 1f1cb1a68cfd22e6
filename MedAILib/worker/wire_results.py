"""The results of each task, and statistics of segments, as plain JSON and arrays and back."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.detections import Box, Detections
from MedAILib.results import (
    Classification,
    Code,
    Generated,
    Label,
    Place,
    Result,
    Saliency,
    Segmentation,
    Terminology,
)
from MedAILib.statistics import SegmentStatistics
from MedAILib.volume import Geometry
from MedAILib.worker.foreign import decoding, flag_of, floats, member_of, text_of, texts_of, triple, whole_of
from MedAILib.worker.protocol import Message
from MedAILib.worker.wire_options import pack_pairs, pairs_of
from MedAILib.worker.wire_volume import pack_geometry, pack_volume, unpack_geometry, unpack_volume

_TYPES = ("segmentation", "classification", "detections", "images")
_Arrays = tuple[NDArray[Any], ...]


def pack_result(result: Result) -> tuple[dict[str, Any], _Arrays]:
    """Body and arrays of a RESULT message.

    Raises:
        TypeError: provenance that is no text.
    """
    if isinstance(result, Generated):
        return _pack_generated(result)
    if isinstance(result, Classification):
        what, (body, arrays) = "classification", _pack_classification(result)
    elif isinstance(result, Detections):
        what, (body, arrays) = "detections", _pack_detections(result)
    else:
        what, (body, arrays) = "segmentation", _pack_segmentation(result)
    both = {
        "type": what,
        "geometry": pack_geometry(result.geometry),
        "provenance": texts_of(result.provenance),
    }
    return both | body, arrays


def unpack_result(message: Message) -> Result:
    """Inverse of `pack_result`; raises ProtocolError."""
    with decoding("result"):
        body = message.body
        kind = member_of(body["type"], _TYPES)
        if kind == "images":
            return _generated(body, message.arrays)
        geometry, provenance = unpack_geometry(body["geometry"]), texts_of(body["provenance"])
        arrays = list(message.arrays)
        result: Result
        if kind == "classification":
            result = _classification(body, arrays, geometry, provenance)
        elif kind == "detections":
            result = _detections(body, geometry, provenance)
        else:
            result = _segmentation(body, arrays, geometry, provenance)
        if arrays:
            raise ValueError(f"{len(arrays)} arrays belong to no part of the result")
        return result


def pack_statistics(rows: Sequence[SegmentStatistics] | None) -> list[dict[str, Any]] | None:
    """Statistics of segments as JSON; None where none were asked for."""
    return None if rows is None else [asdict(row) for row in rows]


def unpack_statistics(message: Message) -> tuple[SegmentStatistics, ...] | None:
    """Inverse of `pack_statistics`, of a RESULT message; None where it has none. Raises ProtocolError."""
    with decoding("statistics"):
        rows = message.body.get("statistics")
        return None if rows is None else tuple(_unpack_row(row) for row in rows)


def _unpack_row(row: Any) -> SegmentStatistics:
    numbers = (_number(row[key]) for key in ("mean", "sd", "minimum", "maximum", "agreement"))
    return SegmentStatistics(
        text_of(row["name"]), whole_of(row["value"]), whole_of(row["voxels"]), float(row["volume_ml"]), *numbers
    )


# Segmentations: the layers, then probabilities and uncertainty where there are some.


def _pack_segmentation(result: Segmentation) -> tuple[dict[str, Any], _Arrays]:
    body = {
        "labels": [_pack_label(label) for label in result.labels],
        "probability_names": list(result.probability_names),
        "has": [result.probabilities is not None, result.uncertainty is not None],
        "agreement": [None if share is None else float(share) for share in result.agreement],
    }
    return body, tuple(a for a in (result.layers, result.probabilities, result.uncertainty) if a is not None)


def _segmentation(body: Any, arrays: list[NDArray[Any]], geometry: Geometry, said: dict[str, str]) -> Segmentation:
    probable, uncertain = (flag_of(one) for one in body["has"])
    return Segmentation(
        arrays.pop(0),
        tuple(_unpack_label(label) for label in body["labels"]),
        geometry,
        arrays.pop(0) if probable else None,
        tuple(text_of(name) for name in body["probability_names"]),
        said,
        arrays.pop(0) if uncertain else None,
        tuple(_number(share) for share in body["agreement"]),
    )


def _pack_label(label: Label) -> dict[str, Any]:
    return {
        "value": int(label.value),
        "name": label.name,
        "color": None if label.color is None else floats(label.color),
        "terminology": label.terminology and asdict(label.terminology),
        "layer": int(label.layer),
    }


def _unpack_label(body: Any) -> Label:
    color, terminology = body["color"], body["terminology"]
    return Label(
        whole_of(body["value"]),
        text_of(body["name"]),
        None if color is None else triple(color),
        terminology
        and Terminology(
            _unpack_code(terminology["category"]),
            _unpack_code(terminology["type"]),
            terminology["modifier"] and _unpack_code(terminology["modifier"]),
        ),
        whole_of(body["layer"]),
    )


def _unpack_code(body: Any) -> Code:
    return Code(text_of(body["scheme"]), text_of(body["value"]), text_of(body["meaning"]))


# Classifications: probabilities and scores, then strangeness and saliency where there are some.


def _pack_classification(result: Classification) -> tuple[dict[str, Any], _Arrays]:
    saliency = result.saliency
    body = {
        "classes": list(result.classes),
        "kind": result.kind,
        "thresholds": floats(result.thresholds),
        "places": [_pack_place(place) for place in result.places],
        "unsure_below": float(result.unsure_below),
        "strange_above": None if result.strange_above is None else float(result.strange_above),
        "saliency": saliency
        and {
            "class_name": saliency.class_name,
            "method": saliency.method,
            "scale": float(saliency.scale),
            "description": saliency.description,
        },
        "codes": [code and asdict(code) for code in result.codes],
    }
    optional = (result.strangeness, None if saliency is None else saliency.values)
    arrays = [array.astype(np.float64, copy=False) for array in (result.probabilities, result.scores)]
    return body, (*arrays, *(array for array in optional if array is not None))


def _classification(body: Any, arrays: list[NDArray[Any]], geometry: Geometry, said: dict[str, str]) -> Classification:
    probabilities, scores = _numbers(arrays.pop(0), 2), _numbers(arrays.pop(0), 2)
    above, told = _number(body["strange_above"]), body["saliency"]
    return Classification(
        tuple(text_of(name) for name in body["classes"]),
        text_of(body["kind"]),
        probabilities,
        scores,
        tuple(float(value) for value in body["thresholds"]),
        tuple(_unpack_place(place, geometry) for place in body["places"]),
        geometry,
        float(body["unsure_below"]),
        None if above is None else _numbers(arrays.pop(0), 1),
        above,
        None
        if told is None
        else Saliency(
            arrays.pop(0),
            geometry,
            text_of(told["class_name"]),
            text_of(told["method"]),
            float(told["scale"]),
            text_of(told["description"]),
        ),
        tuple(None if code is None else _unpack_code(code) for code in body["codes"]),
        said,
    )


def _pack_place(place: Place) -> dict[str, Any]:
    return {
        "what": place.what,
        "box_kji": pack_pairs(place.box_kji),
        "index": None if place.index is None else int(place.index),
        "axis": place.axis,
        "position_mm": None if place.position_mm is None else float(place.position_mm),
    }


def _unpack_place(body: Any, geometry: Geometry) -> Place:
    box, index = pairs_of(body["box_kji"]), body["index"]
    if not all(0 <= first < end <= size for (first, end), size in zip(box, geometry.shape_kji, strict=True)):
        raise ValueError(f"{box} is no box of voxels of the image")
    return Place(
        member_of(body["what"], ("image", "slice", "frame")),
        box,
        None if index is None else whole_of(index),
        member_of(body["axis"], ("", "I", "J", "K")),
        _number(body["position_mm"]),
    )


def _numbers(array: NDArray[Any], dimensions: int) -> NDArray[np.float64]:
    if array.dtype != np.float64 or array.ndim != dimensions:
        raise ValueError(f"an array of {array.dtype} {array.shape} is no table of numbers")
    return array


# Detections have no arrays.


def _pack_detections(result: Detections) -> tuple[dict[str, Any], _Arrays]:
    body = {
        "boxes": [
            {
                "label": box.label,
                "score": float(box.score),
                "low_ijk": floats(box.low_ijk),
                "high_ijk": floats(box.high_ijk),
            }
            for box in result.boxes
        ],
        "classes": list(result.classes),
        "threshold": float(result.threshold),
        "codes": [code and asdict(code) for code in result.codes],
    }
    return body, ()


def _detections(body: Any, geometry: Geometry, said: dict[str, str]) -> Detections:
    boxes = tuple(
        Box(text_of(box["label"]), float(box["score"]), triple(box["low_ijk"]), triple(box["high_ijk"]))
        for box in body["boxes"]
    )
    codes = tuple(None if code is None else _unpack_code(code) for code in body["codes"])
    classes = tuple(text_of(name) for name in body["classes"])
    return Detections(boxes, classes, geometry, float(body["threshold"]), said, codes)


# Images that a model made: each is an array of its own, on a grid of its own.


def _pack_generated(result: Generated) -> tuple[dict[str, Any], _Arrays]:
    body = {
        "type": "images",
        "volumes": [pack_volume(volume) for volume in result.volumes],
        "seeds": [int(seed) for seed in result.seeds],
        "names": list(result.names),
        "provenance": texts_of(result.provenance),
    }
    return body, tuple(volume.data for volume in result.volumes)


def _generated(body: Any, arrays: Sequence[NDArray[Any]]) -> Generated:
    return Generated(
        tuple(unpack_volume(told, (data,)) for told, data in zip(body["volumes"], arrays, strict=True)),
        tuple(whole_of(seed) for seed in body["seeds"]),
        tuple(text_of(name) for name in body["names"]),
        texts_of(body["provenance"]),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
