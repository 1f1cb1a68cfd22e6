"""The one place where weights are read from a file; nothing that such a file holds is ever executed."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy._core.multiarray import _reconstruct
from torch import Tensor, nn

from MedAILib.errors import ModelError
from MedAILib.formats import is_torchscript, other_content
from MedAILib.output import whole_file

# Checkpoints of trainers wrap the network's weights under one of these names.
WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "network_weights", "net")

# What a NumPy array of numbers consists of in a checkpoint, as NumPy 2 and as NumPy 1 called it.
NUMPY_ARRAYS = (
    np.ndarray,
    np.dtype,
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Bool", "Int8", "Int16", "Int32", "Int64")),
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("UInt8", "UInt16", "UInt32", "UInt64")),
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float16", "Float32", "Float64")),
)
# What checkpoints hold beside tensors: numpy's numbers, as numpy 1 and 2 name them. None of these does anything but
# make a number.
_NUMPY_TYPES = (np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_)
_scalar: Any = np.float64(0).__reduce__()[0]
HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    *(type(np.dtype(kind)) for kind in _NUMPY_TYPES),
]

# How often the numbers in a file may stand for several tensors, as tied weights do; above a size that harms nobody.
SHARED, SMALL_BYTES = 4, 16_000_000


def held_bytes(*networks: nn.Module) -> int:
    """Bytes that the weights of networks hold on their device."""
    return sum(part.nbytes for network in networks for part in (*network.parameters(), *network.buffers()))


def load_weights(path: Path) -> dict[str, Any]:
    """Read a file of weights (`.safetensors`, or a PyTorch checkpoint of tensors and plain values) onto the CPU.

    Raises:
        ModelError: the file is missing, empty, damaged, or holds anything else than tensors and plain values.
    """
    if not path.is_file():
        raise ModelError(f"The model's weights are missing: {path} does not exist.")
    if path.stat().st_size == 0:
        raise ModelError(f"The model's weights are empty: {path} has 0 bytes; download or copy the model again.")
    try:
        if is_torchscript(path):
            raise ModelError(
                f"The file {path} is TorchScript and no weights: it would execute code; save the network's state dict, "
                "or put it into a bundle as models/model.ts."
            )
        _require_uncompressed(path)
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        _require_weights(path)
        raise ModelError(
            f"The weights in {path} hold more than tensors and plain values and were not loaded, because reading them "
            "could execute code; ask the model's author for a state dict or safetensors file."
        ) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        AssertionError,
        ArithmeticError,
        MemoryError,
        struct.error,
        zipfile.BadZipFile,
        safetensors.SafetensorError,
    ) as error:
        _require_weights(path)
        raise ModelError(f"The weights in {path} can't be read; the file is damaged or no weights at all.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The file {path} holds a {type(content).__name__}, not a network's weights by name.")
    return content


def load_arrays(path: Path) -> dict[str, Any]:
    """Read a file of weights that may hold NumPy arrays of numbers besides tensors; all come back as tensors.

    Raises:
        ModelError: as `load_weights`.
    """
    with torch.serialization.safe_globals(list(NUMPY_ARRAYS)):
        content = load_weights(path)
    return {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else value
        for key, value in content.items()
    }


def network_weights(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Find the network's tensors by name in what `load_weights` returned; drop a `module.` prefix of data parallel.

    Raises:
        ModelError: no tensors by name are in there.
    """
    for name in WRAPPERS:
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"The file {path} holds no network's weights by name.")
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def renamed(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights of MONAI's former generative package under the names that its networks have in MONAI today.

    What has today's names already is left as it is; names that are not understood stay, for `require_fit` to refuse.
    """
    own = network.state_dict()
    if own.keys() <= weights.keys():
        return weights
    left, found = dict(weights), {}
    for key in own:
        former = next((name for name in _former(key) if name in left), None)
        if former is not None:
            found[key] = left.pop(former)
    return found | left


def _former(key: str) -> tuple[str, ...]:
    """The names that a tensor may have, today's first."""
    if key.endswith((".out_proj.weight", ".out_proj.bias")):
        block, _, kind = key.rpartition(".out_proj.")
        return key, f"{block}.to_out.0.{kind}", f"{block.removesuffix('.attn')}.proj_attn.{kind}"
    return key, key.replace(".attn.to_", ".to_"), key.replace("postconv", "conv")


def require_fit(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """See that every name and shape of a network's weights agrees; the network may stand on the device "meta".

    Raises:
        ModelError: names or shapes differ; the sentence names the first of them.
    """
    _require_honest(weights, path)
    own = network.state_dict()
    for key, tensor in own.items():
        if key not in weights:
            raise ModelError(f"The weights in {path} don't fit the described network: '{key}' is missing.")
        if weights[key].shape != tensor.shape:
            raise ModelError(
                f"The weights in {path} don't fit the described network: '{key}' has shape "
                f"{list(weights[key].shape)} in the file and {list(tensor.shape)} in the network."
            )
    unknown = sorted(weights.keys() - own.keys())
    if unknown:
        raise ModelError(f"The weights in {path} don't fit the described network, which has no '{unknown[0]}'.")


def _require_weights(path: Path) -> None:
    """Raise `ModelError` where a file that could not be read was never weights."""
    try:
        reason = other_content(path)
    except OSError:
        return
    if reason:
        raise ModelError(f"The model's weights in {path} can't be read: {reason}.")


def _require_uncompressed(path: Path) -> None:
    """Raise `ModelError` for a checkpoint that holds more than its file's size, which PyTorch never writes."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        held = sum(info.file_size for info in archive.infolist())
    if held > path.stat().st_size:
        raise ModelError(
            f"The weights in {path} are compressed or claim more than the file holds, and were not loaded; ask the "
            "model's author for a state dict or safetensors file."
        )


def _require_honest(weights: dict[str, Tensor], path: Path) -> None:
    """Raise `ModelError` for tensors that are no plain numbers in memory, or far fewer of them than their shapes say.

    A few bytes can stand for a tensor of any shape; a network of that shape would then take all memory.
    """
    stored, told = {}, 0
    for key, tensor in weights.items():
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.is_complex():
            raise ModelError(f"The weights in {path} hold '{key}', which is no plain tensor of real numbers.")
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        told += tensor.numel() * tensor.element_size()
    if told > SHARED * sum(stored.values()) + SMALL_BYTES:
        raise ModelError(f"The weights in {path} claim shapes of {told / 1e9:.1f} GB, far more than the file holds.")


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old file or the new one.

    Raises:
        OutputError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()  # PyTorch's own writer does not say that a disk is full
    torch.save(content, stream)
    with whole_file(path) as part:
        part.write_bytes(stream.getbuffer())
