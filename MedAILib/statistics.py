"""Size of each segment and the image's intensities inside it; no tables, no files."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.results import Segmentation
from MedAILib.volume import Volume

# Voxels taken at a time: they and their sorted copies stay in the processor's cache.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class SegmentStatistics:
    """One segment in numbers.

    Args:
        name: the label's name.
        value: the label's voxel value.
        voxels: how many voxels it has.
        volume_ml: their volume in mL.
        mean, sd, minimum, maximum: of the image's first channel in these voxels, NaN and infinite ones left out;
            `sd` divides by the number of voxels. None where no voxel counts.
        agreement: of an ensemble's members, their mean Dice with it; None for one model, or where nobody found it.
    """

    name: str
    value: int
    voxels: int
    volume_ml: float
    mean: float | None
    sd: float | None
    minimum: float | None
    maximum: float | None
    agreement: float | None = None


def segment_statistics(segmentation: Segmentation, volume: Volume) -> tuple[SegmentStatistics, ...]:
    """Count every label of a segmentation and sum up the intensities in it, those not found included.

    Args:
        segmentation: labels on the image's grid.
        volume: the image; its first channel counts.

    Raises:
        InputError: image and segmentation lie on different grids.
    """
    if not segmentation.geometry.same_grid_as(volume.geometry):
        raise InputError(f"{volume.name} and its segmentation lie on different grids; segment the image again.")
    sums = {n: _LayerSums(segmentation.layers[n], volume.data[0]) for n in {x.layer for x in segmentation.labels}}
    voxel_ml = segmentation.geometry.voxel_volume_ml
    agreement = segmentation.agreement or (None,) * len(segmentation.labels)
    return tuple(
        replace(sums[x.layer].statistics(x.name, x.value, voxel_ml), agreement=shared)
        for x, shared in zip(segmentation.labels, agreement, strict=True)
    )


def segment_volumes_ml(segmentation: Segmentation) -> dict[str, float]:
    """Volume in mL of each label by its name, those not found included; the image is not needed."""
    counts = {}
    for layer in {x.layer for x in segmentation.labels}:
        flat = segmentation.layers[layer].reshape(-1)
        counts[layer] = np.zeros(np.iinfo(flat.dtype).max + 1, np.int64)
        for start in range(0, flat.size, _CHUNK):
            counts[layer] += np.bincount(flat[start : start + _CHUNK], minlength=counts[layer].size)
    voxel_ml = segmentation.geometry.voxel_volume_ml
    return {x.name: _count(counts[x.layer], x.value) * voxel_ml for x in segmentation.labels}


def _count(counts: NDArray[np.int64], value: int) -> int:
    """A value beyond the layer's type has no voxels."""
    return int(counts[value]) if value < counts.size else 0


class _LayerSums:
    """Running sums of all labels of one layer, taken in one pass over its voxels.

    Sums of squares are about the first intensity met in each label, not about zero, which keeps the standard deviation
    right where intensities are large and vary little.

    Args:
        labels, image: both (K, J, I).
    """

    def __init__(self, labels: NDArray[np.unsignedinteger], image: NDArray[np.generic]) -> None:
        size = np.iinfo(labels.dtype).max + 1
        self._voxels = np.zeros(size, np.int64)
        self._finite = np.zeros(size, np.int64)
        self._origin = np.full(size, np.nan)
        self._sum, self._squares = np.zeros(size), np.zeros(size)
        self._minimum, self._maximum = np.full(size, np.inf), np.full(size, -np.inf)
        flat_labels, flat_image = labels.reshape(-1), image.reshape(-1)
        for start in range(0, flat_labels.size, _CHUNK):
            self._add(flat_labels[start : start + _CHUNK], flat_image[start : start + _CHUNK])

    def _add(self, labels: NDArray[np.unsignedinteger], intensities: NDArray[np.generic]) -> None:
        inside = np.flatnonzero(labels)
        if not inside.size:
            return
        # Sorted by label (a radix sort for 8 and 16 bits), each label is one run, which reduceat sums up.
        inside = inside[np.argsort(labels[inside], kind="stable")]
        labels, values = labels[inside], intensities[inside].astype(np.float64)
        present, counts = _runs(labels)[1:]
        self._voxels[present] += counts
        finite = np.isfinite(values)
        if not finite.all():
            labels, values = labels[finite], values[finite]
            if not values.size:
                return
        starts, present, counts = _runs(labels)
        self._finite[present] += counts
        self._minimum[present] = np.minimum(self._minimum[present], np.minimum.reduceat(values, starts))
        self._maximum[present] = np.maximum(self._maximum[present], np.maximum.reduceat(values, starts))
        self._origin[present] = np.where(np.isnan(self._origin[present]), values[starts], self._origin[present])
        values -= np.repeat(self._origin[present], counts)
        self._sum[present] += np.add.reduceat(values, starts)
        self._squares[present] += np.add.reduceat(values * values, starts)

    def statistics(self, name: str, value: int, voxel_ml: float) -> SegmentStatistics:
        """The finished numbers of one label; a value beyond the layer's type has no voxels."""
        if value >= self._voxels.size:
            return SegmentStatistics(name, value, 0, 0.0, None, None, None, None)
        voxels, finite = int(self._voxels[value]), int(self._finite[value])
        if finite == 0:
            return SegmentStatistics(name, value, voxels, voxels * voxel_ml, None, None, None, None)
        offset = self._sum[value] / finite
        variance = max(self._squares[value] / finite - offset**2, 0.0)
        return SegmentStatistics(
            name,
            value,
            voxels,
            voxels * voxel_ml,
            float(self._origin[value] + offset),
            float(np.sqrt(variance)),
            float(self._minimum[value]),
            float(self._maximum[value]),
        )


def _runs(
    labels: NDArray[np.unsignedinteger],
) -> tuple[NDArray[np.intp], NDArray[np.unsignedinteger], NDArray[np.intp]]:
    """Where each run of equal labels starts, which label it is of, and how long it is."""
    starts = np.flatnonzero(np.concatenate(([True], labels[1:] != labels[:-1])))
    return starts, labels[starts], np.diff(starts, append=labels.size)
