"""What messages carry, as plain JSON and arrays and back: requests, images, results, progress and errors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib import errors
from MedAILib.errors import MedAIError
from MedAILib.request import PRECISIONS, RunOptions, RunRequest
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.statistics import SegmentStatistics
from MedAILib.volume import Geometry, Roi, Volume
from MedAILib.worker.foreign import decoding, flag_of, floats, member_of, shape_of, text_of, texts_of, triple, whole_of
from MedAILib.worker.protocol import Message

# Error kind of an exception that nobody meant to raise; its text is a traceback.
DEFECT = "defect"

ERROR_KINDS: dict[str, type[MedAIError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedAIError)
}


def pack_geometry(geometry: Geometry) -> dict[str, Any]:
    """A grid as JSON; floats come back bit for bit."""
    return {"shape_kji": list(geometry.shape_kji), "ijk_to_ras": geometry.ijk_to_ras.tolist()}


def unpack_geometry(body: Any) -> Geometry:
    """Inverse of `pack_geometry`; raises ProtocolError."""
    with decoding("grid"):
        k, j, i = shape_of(body["shape_kji"])
        return Geometry((k, j, i), np.array(body["ijk_to_ras"], dtype=np.float64))


def pack_run(request: RunRequest, volume: Volume, path: str = "") -> tuple[dict[str, Any], tuple[NDArray[Any], ...]]:
    """Body and arrays of a RUN message; `path` is what a relative path in the request means on the client's side.

    Raises:
        TypeError: provenance that is no text.
    """
    return {"request": pack_request(request), "path": path, "volume": pack_volume(volume)}, (volume.data,)


def unpack_run(message: Message) -> tuple[RunRequest, Volume, str]:
    """Inverse of `pack_run`; raises ProtocolError."""
    body = message.body
    with decoding("run"):
        volume = unpack_volume(body["volume"], message.arrays)
        return unpack_request(body["request"]), volume, text_of(body["path"])


def pack_volume(volume: Volume) -> dict[str, Any]:
    """Everything of an image but its voxels, which travel as the message's one array."""
    return {
        "geometry": pack_geometry(volume.geometry),
        "name": volume.name,
        "provenance": texts_of(volume.provenance),
    }


def unpack_volume(body: Any, arrays: Sequence[NDArray[Any]]) -> Volume:
    """Inverse of `pack_volume`, with the voxels; raises ProtocolError."""
    with decoding("image"):
        (data,) = arrays
        return Volume(data, unpack_geometry(body["geometry"]), text_of(body["name"]), texts_of(body["provenance"]))


def pack_request(request: RunRequest) -> dict[str, Any]:
    """A request as JSON."""
    options = request.options
    return {
        "model": request.model,
        "device": request.device,
        "trust_code": request.trust_code,
        "roi": options.roi and {"center_ras": floats(options.roi.center_ras), "size_mm": floats(options.roi.size_mm)},
        "probabilities": bool(options.probabilities),
        "mirror": bool(options.mirror),
        "postprocess": bool(options.postprocess),
        "uncertainty": bool(options.uncertainty),
        "precision": options.precision,
        "overlap": None if options.overlap is None else float(options.overlap),
        "statistics": bool(request.statistics),
    }


def unpack_request(body: Any) -> RunRequest:
    """Inverse of `pack_request`; raises ProtocolError."""
    with decoding("request"):
        roi = body["roi"]
        options = RunOptions(
            roi=roi and Roi(triple(roi["center_ras"]), triple(roi["size_mm"])),
            probabilities=flag_of(body["probabilities"]),
            mirror=flag_of(body["mirror"]),
            postprocess=flag_of(body["postprocess"]),
            uncertainty=flag_of(body["uncertainty"]),
            precision=member_of(body["precision"], PRECISIONS),
            overlap=None if body["overlap"] is None else float(body["overlap"]),
        )
        return RunRequest(
            text_of(body["model"]),
            text_of(body["device"]),
            options,
            text_of(body["trust_code"]),
            flag_of(body.get("statistics", False)),
        )


def pack_result(result: Segmentation) -> tuple[dict[str, Any], tuple[NDArray[Any], ...]]:
    """Body and arrays of a RESULT message: the layers, then probabilities and uncertainty where there are some.

    Raises:
        TypeError: provenance that is no text.
    """
    body = {
        "type": "segmentation",
        "geometry": pack_geometry(result.geometry),
        "labels": [_pack_label(label) for label in result.labels],
        "probability_names": list(result.probability_names),
        "provenance": texts_of(result.provenance),
        "has": [result.probabilities is not None, result.uncertainty is not None],
        "agreement": [None if share is None else float(share) for share in result.agreement],
    }
    return body, tuple(a for a in (result.layers, result.probabilities, result.uncertainty) if a is not None)


def unpack_result(message: Message) -> Segmentation:
    """Inverse of `pack_result`; raises ProtocolError."""
    with decoding("result"):
        body = message.body
        member_of(body["type"], ("segmentation",))
        layers, *rest = message.arrays
        has = [flag_of(one) for one in body["has"]]
        return Segmentation(
            layers,
            tuple(_unpack_label(label) for label in body["labels"]),
            unpack_geometry(body["geometry"]),
            rest.pop(0) if has[0] else None,
            tuple(text_of(name) for name in body["probability_names"]),
            texts_of(body["provenance"]),
            rest.pop(0) if has[1] else None,
            tuple(None if share is None else float(share) for share in body["agreement"]),
        )


def pack_statistics(rows: Sequence[SegmentStatistics] | None) -> list[dict[str, Any]] | None:
    """Statistics of segments as JSON; None where none were asked for."""
    return None if rows is None else [asdict(row) for row in rows]


def unpack_statistics(message: Message) -> tuple[SegmentStatistics, ...] | None:
    """Inverse of `pack_statistics`, of a RESULT message; None where it has none. Raises ProtocolError."""
    with decoding("statistics"):
        rows = message.body.get("statistics")
        return None if rows is None else tuple(_unpack_row(row) for row in rows)


def _unpack_row(row: Any) -> SegmentStatistics:
    means = (None if row[key] is None else float(row[key]) for key in ("mean", "sd", "minimum", "maximum"))
    return SegmentStatistics(
        text_of(row["name"]), whole_of(row["value"]), whole_of(row["voxels"]), float(row["volume_ml"]), *means
    )


def pack_error(error: MedAIError) -> dict[str, Any]:
    """An error of the user's to mend: the closest kind that both sides know, and its sentence."""
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in ERROR_KINDS)
    return {"kind": kind, "text": str(error)}


def unpack_error(body: Any) -> MedAIError | None:
    """Inverse of `pack_error`; None for a defect. Raises ProtocolError."""
    with decoding("error"):
        text, kind = text_of(body["text"]), member_of(body["kind"], (*ERROR_KINDS, DEFECT))
        return None if kind == DEFECT else ERROR_KINDS[kind](text)


@dataclass(frozen=True)
class Step:
    """How far a run is: `done` of `total` units of what `text` says, in the stage "load" or "run"."""

    stage: str
    done: int
    total: int
    text: str


def pack_step(step: Step) -> dict[str, Any]:
    """Progress as JSON."""
    return {**asdict(step), "done": int(step.done), "total": int(step.total)}


def unpack_step(body: Any) -> Step:
    """Inverse of `pack_step`; raises ProtocolError."""
    with decoding("progress"):
        return Step(text_of(body["stage"]), whole_of(body["done"]), whole_of(body["total"]), text_of(body["text"]))


def pack_text(text: str) -> dict[str, Any]:
    """A warning as JSON."""
    return {"text": str(text)}


def unpack_text(body: Any) -> str:
    """Inverse of `pack_text`; raises ProtocolError."""
    with decoding("text"):
        return text_of(body["text"])


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
