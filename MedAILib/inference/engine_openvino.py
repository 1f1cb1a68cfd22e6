"""Networks by OpenVINO, on CPUs; this file alone knows that package, and is imported where it is to be used."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedAILib.inference.engine import Engine, EngineError

# It would report each import and each conversion to its maker; OpenVINO does without it where it can't be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402

# Beside a conversion: the hash of what was written.
CHECK = ".sha256"
CHUNK = 1 << 22
VERSION = openvino.__version__.partition("-")[0]


def open_openvino(network: nn.Module, patch: Tensor, place: Path, half: bool, threads: int) -> Engine:
    """A network for windows of one shape; converted once and kept in a file, again where that was damaged.

    Args:
        network: PyTorch's, on the CPU.
        patch: a window.
        place: the file (.xml, its weights beside it) of the conversion, which need not be there yet.
        half: compute in bfloat16; else in float32.
        threads: of the processor.

    Raises:
        EngineError: OpenVINO does not take this network.
    """
    try:
        if not _is_whole(place):
            _convert(network, patch, place)
        compiled = openvino.Core().compile_model(
            str(place),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,
            },
        )
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise EngineError(" ".join(str(error).split())[:200]) from error
    request = compiled.create_infer_request()

    def run(window: Tensor) -> Tensor:
        found: Any = request.infer([window.contiguous().numpy()], share_inputs=True)[0]
        return torch.from_numpy(found)

    return run


def _convert(network: nn.Module, patch: Tensor, place: Path) -> None:
    """Write a network as OpenVINO has it, whole or not at all."""
    # A copy that was made in inference mode can't be traced.
    with torch.inference_mode(False), torch.no_grad():
        model = openvino.convert_model(network, example_input=patch.clone(), input=[list(patch.shape)])
    part = place.with_name(f"{place.stem}.{os.getpid()}.xml")
    openvino.save_model(model, part, compress_to_fp16=False)
    said = part.with_suffix(CHECK)
    said.write_text(_check(part), encoding="utf-8")
    for kind in (".bin", CHECK, ".xml"):
        part.with_suffix(kind).replace(place.with_suffix(kind))


def _is_whole(place: Path) -> bool:
    """Whether a conversion is there as it was written, its weights too."""
    try:
        return place.is_file() and place.with_suffix(CHECK).read_text(encoding="utf-8") == _check(place)
    except (OSError, UnicodeDecodeError):
        return False


def _check(place: Path) -> str:
    digest = hashlib.sha256()
    for path in (place, place.with_suffix(".bin")):
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
