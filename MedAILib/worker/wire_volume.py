"""Grids and images as plain JSON, their voxels beside it, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.volume import Geometry, Volume
from MedAILib.worker.foreign import decoding, shape_of, text_of, texts_of


def pack_geometry(geometry: Geometry) -> dict[str, Any]:
    """A grid as JSON; floats come back bit for bit."""
    return {"shape_kji": list(geometry.shape_kji), "ijk_to_ras": geometry.ijk_to_ras.tolist()}


def unpack_geometry(body: Any) -> Geometry:
    """Inverse of `pack_geometry`; raises ProtocolError."""
    with decoding("grid"):
        k, j, i = shape_of(body["shape_kji"])
        return Geometry((k, j, i), np.array(body["ijk_to_ras"], dtype=np.float64))


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
