"""The options of each task as plain JSON and back."""

from collections.abc import Sequence
from typing import Any

from MedAILib.request import (
    ENGINES,
    PRECISIONS,
    ClassifyOptions,
    DetectOptions,
    Explain,
    GenerateOptions,
    Options,
    RunOptions,
    Slices,
)
from MedAILib.volume import Roi
from MedAILib.worker.foreign import decoding, flag_of, floats, member_of, object_of, text_of, triple, whole_of

_TASKS = ("segment", "classify", "detect", "generate")


def pack_options(options: Options) -> dict[str, Any]:
    """Options as JSON, with the task that they belong to."""
    if isinstance(options, ClassifyOptions):
        return {"task": "classify", "roi": _pack_roi(options.roi), **_classify(options)}
    if isinstance(options, DetectOptions):
        return {"task": "detect", "roi": _pack_roi(options.roi), **_detect(options)}
    if isinstance(options, GenerateOptions):
        return {"task": "generate", "count": int(options.count), "seed": int(options.seed)}
    return {"task": "segment", "roi": _pack_roi(options.roi), **_segment(options)}


def unpack_options(body: Any) -> Options:
    """Inverse of `pack_options`; raises ProtocolError."""
    with decoding("option"):
        task = member_of(body["task"], _TASKS)
        if task == "generate":
            return GenerateOptions(whole_of(body["count"]), whole_of(body["seed"]))
        roi = _unpack_roi(body["roi"])
        if task == "classify":
            return _unpack_classify(body, roi)
        if task == "detect":
            return DetectOptions(
                roi, float(body["smallest_ml"]), _number(body["score_threshold"]), _number(body["overlap_limit"])
            )
        return RunOptions(
            roi=roi,
            probabilities=flag_of(body["probabilities"]),
            mirror=flag_of(body["mirror"]),
            postprocess=flag_of(body["postprocess"]),
            uncertainty=flag_of(body["uncertainty"]),
            overlap=_number(body["overlap"]),
            precision=member_of(body["precision"], PRECISIONS),
            engine=member_of(body["engine"], ENGINES),
        )


def pairs_of(value: Any) -> tuple[tuple[int, int], ...]:
    """A box of voxels: (first, last + 1) along K, J and I."""
    pairs = tuple((whole_of(first), whole_of(end)) for first, end in value)
    if len(pairs) != 3:
        raise ValueError(f"{value!r} is no box of voxels")
    return pairs


def pack_pairs(box: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Inverse of `pairs_of`."""
    return [[int(first), int(end)] for first, end in box]


def _segment(options: RunOptions) -> dict[str, Any]:
    return {
        "probabilities": bool(options.probabilities),
        "mirror": bool(options.mirror),
        "postprocess": bool(options.postprocess),
        "uncertainty": bool(options.uncertainty),
        "overlap": None if options.overlap is None else float(options.overlap),
        "precision": options.precision,
        "engine": options.engine,
    }


def _detect(options: DetectOptions) -> dict[str, Any]:
    return {
        "smallest_ml": float(options.smallest_ml),
        "score_threshold": None if options.score_threshold is None else float(options.score_threshold),
        "overlap_limit": None if options.overlap_limit is None else float(options.overlap_limit),
    }


def _classify(options: ClassifyOptions) -> dict[str, Any]:
    slices, explain = options.slices, options.explain
    return {
        "box_kji": None if options.box_kji is None else pack_pairs(options.box_kji),
        "slices": slices and {"axis": slices.axis, "index": None if slices.index is None else int(slices.index)},
        "each_frame": bool(options.each_frame),
        "covariates": {name: float(value) for name, value in options.covariates.items()},
        "explain": explain and {"method": explain.method, "class_name": explain.class_name},
    }


def _unpack_classify(body: Any, roi: Roi | None) -> ClassifyOptions:
    box, slices, explain = body["box_kji"], body["slices"], body["explain"]
    index = None if slices is None else slices["index"]
    name = None if explain is None else explain["class_name"]
    return ClassifyOptions(
        roi=roi,
        box_kji=None if box is None else pairs_of(box),
        slices=None if slices is None else Slices(text_of(slices["axis"]), None if index is None else whole_of(index)),
        each_frame=flag_of(body["each_frame"]),
        covariates={text_of(key): float(value) for key, value in object_of(body["covariates"]).items()},
        explain=None
        if explain is None
        else Explain(text_of(explain["method"]), None if name is None else text_of(name)),
    )


def _pack_roi(roi: Roi | None) -> dict[str, Any] | None:
    return None if roi is None else {"center_ras": floats(roi.center_ras), "size_mm": floats(roi.size_mm)}


def _unpack_roi(body: Any) -> Roi | None:
    return None if body is None else Roi(triple(body["center_ras"]), triple(body["size_mm"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
