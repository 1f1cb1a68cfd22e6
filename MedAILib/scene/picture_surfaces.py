"""Surfaces of structures and of the body around them, drawn by software alone: no OpenGL, no window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import (
    vtkFlyingEdges3D,
    vtkPolyDataNormals,
    vtkQuadricDecimation,
    vtkWindowedSincPolyDataFilter,
)

from MedAILib.volume import Geometry, Volume

_VIEW_DEG = (28.0, 18.0)  # how far the viewer stands to the patient's left, and above
_FINEST = 3  # the picture is drawn this many times larger and averaged: smooth edges without a graphics library

_MOST_VOXELS = 1_500_000  # of a structure's box before it is thinned: more would take seconds and show nothing


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in the patient.

    Args:
        corners_ras: (n, 3, 3) mm.
        normals_ras: (n, 3, 3) unit vectors at the corners, outwards.
        color: red, green, blue, 0 to 1.
        glass: whether only its rim is drawn, as of clear glass.
    """

    corners_ras: NDArray[np.float64]
    normals_ras: NDArray[np.float64]
    color: tuple[float, float, float]
    glass: bool = False


def structure_surface(
    mask_kji: NDArray[np.bool_], geometry: Geometry, color: tuple[float, float, float], triangles: int = 30000
) -> Surface:
    """The smoothed surface of one structure, of about so many triangles at most."""
    factor = max(1, round((mask_kji.size / _MOST_VOXELS) ** (1 / 3)))
    field, geometry = _thinned(mask_kji, geometry, (factor,) * 3)
    field = np.pad(field, 2)
    return _surface(field, geometry.cropped((-2, -2, -2), field.shape), color, triangles, glass=False)


def body_surface(volume: Volume, color: tuple[float, float, float]) -> Surface | None:
    """The outside of what is brighter than the background; None where it runs out of the image, as in a crop.

    The image is thinned to about 110 voxels along its longest side, smoothed and cut at Otsu's threshold; its cavities
    are filled.
    """
    spacing = np.array(volume.geometry.spacing_kji_mm)
    extent = spacing * volume.geometry.shape_kji
    step = max(2.2, float(extent.max()) / 110)
    k, j, i = (max(1, round(step / s)) for s in spacing)
    data, geometry = _thinned(volume.data[0], volume.geometry, (k, j, i))
    if min(data.shape) < 8 or not np.isfinite(data).all():
        return None
    smooth = ndimage.gaussian_filter(data, 0.5)
    parts, count = ndimage.label(smooth > _otsu(smooth))
    if count == 0:
        return None
    body = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    body = ndimage.binary_fill_holes(body)
    faces = [body.take(side, axis) for axis in range(3) for side in (0, -1)]
    if np.mean([face.mean() for face in faces]) > 0.12:
        return None
    field = np.pad(ndimage.gaussian_filter(body.astype(np.float32), 0.8), 2)
    return _surface(field, geometry.cropped((-2, -2, -2), field.shape), color, 60000, glass=True)


def draw(
    surfaces: Sequence[Surface], size_px: tuple[int, int], background: tuple[float, float, float]
) -> NDArray[np.float32]:
    """A picture (height, width, 3), 0 to 1, of at least one surface as `camera` sees it, all of it in the frame.

    Args:
        surfaces: what to draw; nearer triangles cover farther ones.
        size_px: width, height.
        background: red, green, blue.
    """
    right, up, toward = camera()
    corners = np.concatenate([s.corners_ras for s in surfaces])
    seen = np.stack([corners @ right, corners @ up], axis=-1)
    middle = (seen.min(axis=(0, 1)) + seen.max(axis=(0, 1))) / 2
    width, height = size_px
    extent = np.ptp(seen, axis=(0, 1))
    span = 1.08 * max(extent[0], extent[1] * width / height)
    colors = np.concatenate([_shaded(s) for s in surfaces])
    order = np.argsort((corners @ toward).mean(axis=1))
    order = order[colors[order, 3] > 0]
    colors = colors[order]
    opaque = colors[:, 3] > 0.99

    figure = Figure(figsize=(width * _FINEST / 100, height * _FINEST / 100), dpi=100, facecolor=background)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-span / 2, span / 2)
    axes.set_ylim(-span / 2 * height / width, span / 2 * height / width)
    triangles = PolyCollection(
        (seen - middle)[order],
        facecolors=colors,
        edgecolors=np.where(opaque[:, None], colors, 0),  # a hair's breadth of its own colour closes the seams
        linewidths=np.where(opaque, 0.5, 0),
        antialiaseds=False,
    )
    axes.add_collection(triangles, autolim=False)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255
    return picture.reshape(height, _FINEST, width, _FINEST, 3).mean(axis=(1, 3))


def camera() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors in RAS: to the picture's right, up, and toward the viewer.

    The viewer stands in front, a little to the patient's left and above, so left lies on the picture's right as in
    the slices.
    """
    azimuth, elevation = np.radians(_VIEW_DEG)
    toward = np.array([-np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.cross((0.0, 0.0, 1.0), toward)
    right /= np.linalg.norm(right)
    return right, np.cross(toward, right), toward


def _shaded(surface: Surface) -> NDArray[np.float64]:
    """Colour and opacity (n, 4) of each triangle: two lamps and a highlight, or for glass an opacity at the rim."""
    right, up, toward = camera()
    normals = surface.normals_ras.mean(axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    facing = normals @ toward
    base = np.array(surface.color)
    if surface.glass:
        rim = 1 - np.abs(facing)
        return np.column_stack([np.broadcast_to(base, (len(normals), 3)), 0.012 + 0.16 * rim**2.5])
    lamp = toward + 0.9 * up - 0.6 * right
    lamp /= np.linalg.norm(lamp)
    half = (lamp + toward) / np.linalg.norm(lamp + toward)
    light = 0.34 + 0.58 * np.clip(normals @ lamp, 0, 1) + 0.16 * np.clip(facing, 0, 1)
    gloss = 0.32 * np.clip(normals @ half, 0, 1) ** 28
    color = np.clip(base * light[:, None] + gloss[:, None], 0, 1)
    return np.column_stack([color, np.where(facing > -0.3, 1.0, 0.0)])  # a closed surface hides its far side


def _surface(
    field_kji: NDArray[np.float32], geometry: Geometry, color: tuple[float, float, float], triangles: int, glass: bool
) -> Surface:
    """The surface where a field is one half, smoothed in mm."""
    image = vtkImageData()
    image.SetDimensions(*field_kji.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(field_kji).ravel(), deep=True))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.5)
    edges.ComputeNormalsOff()
    edges.Update()
    mesh = vtkPolyData()
    mesh.DeepCopy(edges.GetOutput())
    points = vtk_to_numpy(mesh.GetPoints().GetData())
    mesh.GetPoints().SetData(numpy_to_vtk(geometry.ras_of(points), deep=True))
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputData(mesh)
    smooth.SetNumberOfIterations(10 if glass else 30)
    smooth.SetPassBand(0.1 if glass else 0.04)
    smooth.NormalizeCoordinatesOn()
    smooth.Update()
    mesh = smooth.GetOutput()
    if mesh.GetNumberOfPolys() > triangles:
        fewer = vtkQuadricDecimation()
        fewer.SetInputData(mesh)
        fewer.SetTargetReduction(1 - triangles / mesh.GetNumberOfPolys())
        fewer.Update()
        mesh = fewer.GetOutput()
    normals = vtkPolyDataNormals()
    normals.SetInputData(mesh)
    normals.SplittingOff()
    normals.ConsistencyOff()  # the contour is consistent already, over all its parts
    normals.Update()
    mesh = normals.GetOutput()
    indices = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    corners = vtk_to_numpy(mesh.GetPoints().GetData()).astype(np.float64)[indices]
    directions = vtk_to_numpy(mesh.GetPointData().GetNormals()).astype(np.float64)[indices]
    if np.einsum("ij,ij", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0:  # a negative volume: inside out
        directions = -directions
    while not glass and len(corners) * 4 <= triangles:
        corners, directions = _quartered(corners), _quartered(directions)
    return Surface(corners, directions, color, glass)


def _quartered(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each triangle (n, 3, 3) as four, so that shading by interpolated normals looks smooth."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    parts = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    return np.concatenate([np.stack(part, axis=1) for part in parts])


def _thinned(
    data: NDArray[Any], geometry: Geometry, factor_kji: tuple[int, ...]
) -> tuple[NDArray[np.float32], Geometry]:
    """Every so many-th voxel along each axis, as float32, and its grid; masks are averaged, images are not."""
    factor_kji = tuple(min(f, n) for f, n in zip(factor_kji, data.shape, strict=True))
    picked = tuple(slice(f // 2, None, f) for f in factor_kji)
    if data.dtype == np.bool_ and max(factor_kji) > 1:
        data = ndimage.uniform_filter(data.astype(np.float32), factor_kji)
    thin = data[picked].astype(np.float32)
    matrix = geometry.ijk_to_ras.copy()
    matrix[:3, 3] = geometry.ras_of([[f // 2 for f in factor_kji[::-1]]])[0]
    matrix[:3, :3] *= factor_kji[::-1]
    return thin, Geometry(thin.shape, matrix)


def _otsu(values: NDArray[np.float32]) -> float:
    """The threshold that parts values into two groups of least spread."""
    counts, edges = np.histogram(values, 256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    total = np.cumsum(counts * middle)
    above = below[-1] - below
    valid = (below > 0) & (above > 0)
    if not valid.any():
        return float(middle[-1])
    between = np.zeros(len(middle))
    difference = total[valid] / below[valid] - (total[-1] - total[valid]) / above[valid]
    between[valid] = below[valid] * above[valid] * difference**2
    return float(middle[int(between.argmax())])
