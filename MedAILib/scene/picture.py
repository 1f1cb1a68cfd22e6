"""One picture of a segmentation: three slices with outlines, the surfaces in 3D, names and volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from MedAILib.output import whole_file
from MedAILib.results import Segmentation
from MedAILib.scene.picture_slices import (
    PLANES,
    Plane,
    Structure,
    best_center,
    display_range,
    image_box,
    sample,
    sample_mask,
    structures_of,
)
from MedAILib.scene.picture_surfaces import body_surface, camera, draw, structure_surface
from MedAILib.volume import Volume

RGB = tuple[float, float, float]

_BACKGROUND: RGB = (0.043, 0.055, 0.075)
_TEXT = "#e6ebf2"
_FAINT = "#8793a5"
_GLASS: RGB = (0.72, 0.82, 0.95)
# For labels whose description names no colour; told apart by people with any colour vision.
_PALETTE: tuple[RGB, ...] = (
    (0.90, 0.62, 0.00),
    (0.34, 0.71, 0.91),
    (0.00, 0.62, 0.45),
    (0.94, 0.89, 0.26),
    (0.84, 0.37, 0.00),
    (0.80, 0.47, 0.65),
    (0.35, 0.48, 0.90),
)
_WIDTH, _HEIGHT = 1600, 1000
_SLICE_PX = 404
_SURFACES_PX = (696, 824)
_MAX_ROWS = 9
_NOTE = "MedAI · research use only, not a medical device"


@dataclass(frozen=True, eq=False)
class _Scene:
    """What every slice shows, where the planes cross, and the values drawn black and white."""

    volume: Volume
    found: tuple[Structure, ...]
    center_ras: tuple[float, float, float]
    shown: tuple[float, float]


def write_picture(segmentation: Segmentation, volume: Volume, path: Path, title: str) -> None:
    """Write a PNG of 1600 x 1000 pixels that shows what was found and where.

    The slices are cut along the patient's axes, whatever the grid, through the position that shows most of the
    structures, and are framed on them, with the whole slice small in a corner. They are drawn as radiologists see
    them: the patient's right on the left-hand side. Where the image shows a whole head or body, its outside is drawn
    as glass around the surfaces.

    Args:
        segmentation: with or without anything found, on the grid of `volume`.
        volume: the image; its first channel is shown.
        path: the file, ending in `.png`.
        title: above the picture.

    Raises:
        OutputError: the file can't be written.
    """
    found = structures_of(segmentation)
    scene = _Scene(volume, found, best_center(found, volume.geometry), display_range(volume))
    figure = Figure(figsize=(_WIDTH / 100, _HEIGHT / 100), dpi=100, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.02, 0.945, title, color=_TEXT, fontsize=21, fontweight="bold", va="center")
    figure.text(0.98, 0.945, _NOTE, color=_FAINT, fontsize=11, va="center", ha="right")
    for name, place in zip(PLANES, ((32, 492), (452, 492), (32, 72)), strict=True):
        _draw_slice(_axes(figure, (*place, _SLICE_PX, _SLICE_PX)), name, scene)
    _draw_legend(_axes(figure, (452, 72, _SLICE_PX, _SLICE_PX)), found)
    _draw_surfaces(_axes(figure, (872, 72, *_SURFACES_PX)), scene)
    figure.text(0.02, 0.036, volume.name, color=_FAINT, fontsize=11, va="center")
    with whole_file(path) as part:
        canvas.print_png(part)


def _color(structure: Structure) -> RGB:
    return structure.label.color or _PALETTE[structure.number % len(_PALETTE)]


def _axes(figure: Figure, box_px: tuple[int, int, int, int]) -> Axes:
    """Empty axes at left, bottom, width, height in pixels."""
    left, bottom, width, height = box_px
    axes = figure.add_axes((left / _WIDTH, bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT))
    axes.set_axis_off()
    return axes


def _draw_slice(axes: Axes, name: str, scene: _Scene) -> None:
    whole = _whole_plane(name, scene)
    near = _near_plane(name, scene, whole)
    pixels = 2 * _SLICE_PX
    _draw_plane(axes, near, pixels, scene)
    voxel = min(scene.volume.geometry.spacing_kji_mm) / (2 * near.half_mm) * _SLICE_PX
    for structure in scene.found:
        share = sample_mask(structure, near, _SLICE_PX)
        if share.any():
            _draw_outline(axes, gaussian_filter(share, 0.6 * voxel, truncate=2.5), _color(structure), pixels)
    across, _, letters = PLANES[name]
    for letter, (x, y) in zip(letters, ((0.035, 0.5), (0.965, 0.5), (0.5, 0.96), (0.5, 0.04)), strict=True):
        _write(axes, (x * pixels, (1 - y) * pixels), letter, fontsize=13, fontweight="bold", ha="center", va="center")
    cut = scene.center_ras[across]
    position = f"{name}   {('RAS' if cut >= 0 else 'LPI')[across]} {abs(cut):.0f} mm"
    _write(axes, (0.025 * pixels, 0.04 * pixels), position, fontsize=11, va="center")
    _draw_scale_bar(axes, near, pixels)
    if near.half_mm < 0.8 * whole.half_mm:
        _draw_overview(axes, whole, near, scene)


def _draw_outline(axes: Axes, share: NDArray[np.float32], color: RGB, pixels: int) -> None:
    if share.max() > 0.5:
        at = (np.arange(len(share)) + 0.5) * pixels / len(share) - 0.5
        axes.contourf(at, at, share, levels=[0.5, 2], colors=[color], alpha=0.25)
        axes.contour(at, at, share, levels=[0.5], colors=[color], linewidths=2)


def _write(axes: Axes, place: tuple[float, float], text: str, **style: Any) -> None:
    """Light letters with a dark rim, readable on white matter and on air."""
    axes.text(*place, text, color=_TEXT, path_effects=[withStroke(linewidth=2.6, foreground="#05070a")], **style)


def _whole_plane(name: str, scene: _Scene) -> Plane:
    """The window that holds the whole slice."""
    low, high = image_box(scene.volume.geometry)
    across, ((columns, _), (rows, _)), _ = PLANES[name]
    middle = (low + high) / 2
    middle[across] = scene.center_ras[across]
    return Plane(name, (middle[0], middle[1], middle[2]), float(max((high - low)[[columns, rows]]) / 2))


def _near_plane(name: str, scene: _Scene, whole: Plane) -> Plane:
    """The window around the structures, with some context; the whole slice where that is hardly larger."""
    if not scene.found:
        return whole
    points = np.concatenate([structure.points_ras for structure in scene.found])
    low, high = points.min(axis=0), points.max(axis=0)
    across, ((columns, _), (rows, _)), _ = PLANES[name]
    middle = (low + high) / 2
    middle[across] = scene.center_ras[across]
    half = float(max((high - low)[[columns, rows]])) / 2 * 1.3 + 9
    return whole if half > 0.8 * whole.half_mm else Plane(name, (middle[0], middle[1], middle[2]), half)


def _draw_plane(axes: Axes, plane: Plane, pixels: int, scene: _Scene) -> None:
    black, white = scene.shown
    values = np.nan_to_num(sample(scene.volume.data[0], scene.volume.geometry, plane, pixels), nan=black)
    grey = np.clip((values - black) / (white - black), 0, 1)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", aspect="auto")


def _draw_scale_bar(axes: Axes, plane: Plane, pixels: int) -> None:
    length = next(mm for mm in (100, 50, 20, 10, 5, 2, 1, 0.5, 0) if mm <= 0.5 * plane.half_mm)
    if length == 0:
        return
    width = length / (2 * plane.half_mm) * pixels
    right, bottom = 0.965 * pixels, 0.965 * pixels
    axes.plot([right - width, right], [bottom, bottom], color=_TEXT, linewidth=2, solid_capstyle="butt")
    _write(axes, (right - width / 2, bottom - 8), f"{length:g} mm", fontsize=9.5, ha="center", va="bottom")


def _draw_overview(axes: Axes, whole: Plane, near: Plane, scene: _Scene) -> None:
    """The whole slice in the lower left corner, with the window's frame."""
    inset = axes.inset_axes((0.02, 0.02, 0.27, 0.27))
    pixels = 220
    _draw_plane(inset, whole, pixels, scene)
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set_color(_FAINT)
        spine.set_linewidth(0.8)
    _, ((column_axis, column_sign), (row_axis, row_sign)), _ = PLANES[near.name]
    millimetre = pixels / (2 * whole.half_mm)
    x = column_sign * (near.center_ras[column_axis] - whole.center_ras[column_axis]) * millimetre + pixels / 2
    y = row_sign * (near.center_ras[row_axis] - whole.center_ras[row_axis]) * millimetre + pixels / 2
    half = near.half_mm * millimetre
    inset.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor="#ffd166", linewidth=1.2))


def _draw_legend(axes: Axes, found: Sequence[Structure]) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    if not found:
        axes.text(0.5, 0.5, "Nothing was found", color=_TEXT, fontsize=17, ha="center")
        return
    rows = sorted(found, key=lambda item: -item.volume_ml)[:_MAX_ROWS] if len(found) > _MAX_ROWS else list(found)
    pitch = 0.092
    top = 0.5 + (len(rows) + (len(found) > len(rows)) + 1) * pitch / 2
    axes.text(0.04, top, "Structure", color=_FAINT, fontsize=11.5, va="center")
    axes.text(0.98, top, "Volume", color=_FAINT, fontsize=11.5, va="center", ha="right")
    for n, item in enumerate(rows, start=1):
        y = top - n * pitch
        axes.add_patch(Rectangle((0.04, y - 0.022), 0.044, 0.044, color=_color(item), linewidth=0))
        name = item.label.name if len(item.label.name) <= 32 else item.label.name[:31] + "…"
        axes.text(0.115, y, name, color=_TEXT, fontsize=11.5, va="center_baseline")
        axes.text(0.98, y, f"{item.volume_ml:.2f} mL", color=_TEXT, fontsize=11.5, va="center_baseline", ha="right")
        axes.plot([0.04, 0.98], [y - pitch / 2, y - pitch / 2], color="#232b38", linewidth=0.8)
    if len(found) > len(rows):
        y = top - (len(rows) + 1) * pitch
        axes.text(0.115, y, f"and {len(found) - len(rows)} more", color=_FAINT, fontsize=12.5, va="center")


def _draw_surfaces(axes: Axes, scene: _Scene) -> None:
    budget = max(1500, min(30000, 90000 // max(1, len(scene.found))))
    surfaces = [structure_surface(item.mask, item.geometry, _color(item), budget) for item in scene.found]
    body = body_surface(scene.volume, _GLASS)
    if body is not None:
        surfaces.append(body)
    if surfaces:
        axes.imshow(draw(surfaces, _SURFACES_PX, _BACKGROUND), interpolation="nearest", aspect="auto")
        _draw_directions(axes)


def _draw_directions(axes: Axes) -> None:
    """Four of the patient's directions in the lower left corner, as the camera sees them."""
    right, up, _ = camera()
    width, height = _SURFACES_PX
    x, y = 62.0, height - 70.0
    for letter, axis, sign in (("R", 0, 1), ("L", 0, -1), ("A", 1, 1), ("S", 2, 1)):
        dx, dy = 42 * sign * right[axis], -42 * sign * up[axis]
        axes.plot([x, x + dx], [y, y + dy], color=_FAINT, linewidth=1.3, solid_capstyle="round")
        _write(axes, (x + 1.45 * dx, y + 1.45 * dy), letter, fontsize=11, ha="center", va="center")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
