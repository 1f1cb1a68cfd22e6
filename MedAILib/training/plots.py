"""The figures of an evaluation's report, drawn with matplotlib."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from MedAILib.training.evaluate import MEASURES, Evaluation, Picture, finite_mean

HEADLINE = MEASURES[:3] + MEASURES[4:5]  # Dice, 95 % Hausdorff distance, surface Dice, volume difference
PANELS_AT_MOST = 12
REFERENCE, PREDICTED, INK, ACCENT = "#e69f00", "#56b4e9", "#22272e", "#2f6690"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": "#8b949e",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 2.5,
    "xtick.major.size": 2.5,
}


def box_plots(evaluation: Evaluation) -> Figure:
    """A panel for each headline measure, a box for each structure."""
    many = len(evaluation.labels) > 6
    figure = Figure(figsize=(8.6, 8.6 if many else 2.9), layout="constrained")
    panels = figure.subplots(len(HEADLINE) if many else 1, 1 if many else len(HEADLINE), sharex=many, squeeze=False)
    jitter = np.random.default_rng(0)
    for axes, measure in zip(panels.ravel(), HEADLINE, strict=True):
        columns = [evaluation.values(label, measure) for label in evaluation.labels]
        columns = [values[np.isfinite(values)] for values in columns]
        places = np.arange(len(columns)) + 1
        for place, values in zip(places, columns, strict=True):
            x = place + jitter.uniform(-0.16, 0.16, values.size)
            axes.plot(x, values, "o", color=ACCENT, markersize=2.2, alpha=0.35, markeredgewidth=0, zorder=1)
        axes.boxplot(
            columns,
            positions=places,
            widths=0.55,
            showfliers=False,
            boxprops={"color": INK, "linewidth": 0.8},
            whiskerprops={"color": INK, "linewidth": 0.8},
            capprops={"color": INK, "linewidth": 0.8},
            medianprops={"color": INK, "linewidth": 1.6},
        )
        axes.set_title(measure.title)
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(0.4, len(columns) + 0.6)
        names = list(evaluation.labels.values())
        axes.set_xticks(places, names if many else _wrapped(names), rotation=90 if many else 0)
        if measure.badness is abs:
            axes.axhline(0, color="#8b949e", linewidth=0.7)
    return figure


def _wrapped(names: Sequence[str]) -> list[str]:
    return [name if len(name) <= 14 else name.replace(" ", "\n", 1) for name in names]


def shown_volumes(evaluation: Evaluation) -> list[int]:
    """The structures whose volumes are plotted: all, or those of lowest mean Dice where there are many."""
    by_dice = sorted(
        evaluation.labels, key=lambda x: np.nan_to_num(finite_mean(evaluation.values(x, MEASURES[0])), nan=2)
    )
    return sorted(by_dice[:PANELS_AT_MOST])


def bland_altman(evaluation: Evaluation) -> Figure:
    labels = shown_volumes(evaluation)
    columns = min(len(labels), 3)
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(8.6, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    for axes, label in zip(panels, labels, strict=False):
        found = [result.agreements[label] for result in evaluation.cases]
        reference = np.array([x.reference_ml for x in found])
        predicted = np.array([x.predicted_ml for x in found])
        there = reference + predicted > 0
        _bland_altman_panel(axes, reference[there], predicted[there])
        axes.set_title(evaluation.labels[label])
    figure.supxlabel("Mean of reference and prediction (mL)", fontsize=8)
    figure.supylabel("Difference (mL)", fontsize=8)
    return figure


def _bland_altman_panel(axes: Axes, reference: NDArray[np.float64], predicted: NDArray[np.float64]) -> None:
    difference = predicted - reference
    axes.plot((reference + predicted) / 2, difference, "o", color=ACCENT, markersize=3, alpha=0.5, markeredgewidth=0)
    axes.axhline(0, color="#c9ced4", linewidth=0.7, zorder=0)
    if difference.size > 1:
        bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
        for height, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            axes.axhline(height, color=INK, linewidth=0.9, linestyle=style)
            text = f"{height:+.3f}".replace("-", "−")
            axes.annotate(
                text,
                (1, height),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 2),
                textcoords="offset points",
                ha="right",
                fontsize=7,
            )
        axes.margins(x=0.12, y=0.15)


def outlines(picture: Picture) -> Figure:
    """The square part of the slice around the structures, as radiologists look at it, with both outlines."""
    (image, reference, predicted), spacing, letters = as_seen(picture)
    rows, columns = np.nonzero(reference | predicted)
    low = columns.min() * spacing[1], rows.min() * spacing[0]
    high = (columns.max() + 1) * spacing[1], (rows.max() + 1) * spacing[0]
    figure, axes = slice_around(image, spacing, letters, (low, high))
    for labels, color, line in ((reference, REFERENCE, 1.6), (predicted, PREDICTED, 1.2)):
        x = (np.arange(labels.shape[1] + 2) - 0.5) * spacing[1]
        y = (np.arange(labels.shape[0] + 2) - 0.5) * spacing[0]
        for value in np.unique(labels[labels > 0]):
            axes.contour(x, y, np.pad(labels == value, 1), levels=[0.5], colors=color, linewidths=line)
    return figure


def slice_around(
    image: NDArray[Any],
    spacing: tuple[float, float],
    letters: tuple[str, str],
    bounds: tuple[tuple[float, float], tuple[float, float]],
) -> tuple[Figure, Axes]:
    """The square part of a slice around what lies within bounds, with the letters of its left and upper edge.

    Args:
        image: (rows, columns), as it is to be seen.
        spacing: of rows and columns, mm.
        letters: at the left and at the upper edge.
        bounds: lowest and highest place (x, y) in mm from the outer corner at the upper left, y downwards.
    """
    figure = Figure(figsize=(3, 3), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    height, width = image.shape[0] * spacing[0], image.shape[1] * spacing[1]
    low, high = np.array(bounds)
    half = float((high - low).max()) / 2 * 1.25 + 4 * max(spacing)
    shown = image[np.isfinite(image)]
    darkest, brightest = np.percentile(shown, (1, 99.5)) if shown.size else (0, 1)
    axes.imshow(
        image,
        cmap="gray",
        vmin=darkest,
        vmax=max(brightest, darkest + 1e-6),
        extent=(0, width, height, 0),
        interpolation="bilinear",
    )
    x, y = (float(n) for n in (low + high) / 2)
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y + half, y - half)
    for letter, place in zip(letters, ((0.03, 0.5), (0.5, 0.97)), strict=True):
        axes.text(
            *place,
            letter,
            transform=axes.transAxes,
            color="white",
            fontsize=9,
            ha="left" if place[0] < 0.1 else "center",
            va="center" if place[0] < 0.1 else "top",
        )
    return figure, axes


def as_seen(picture: Picture) -> tuple[list[NDArray[Any]], tuple[float, float], tuple[str, str]]:
    """Turn a slice the way it is usually shown: patient's right or front to the left, front or head up.

    Returns:
        image, reference and prediction (rows, columns); spacing of rows and columns in mm; the letters at the left and
        at the upper edge.
    """
    arrays: list[NDArray[Any]] = [picture.image.astype(np.float64), picture.reference, picture.predicted]
    swapped, mirrored, upturned, letters = turns(picture.orientation)
    spacing = picture.spacing_ji_mm
    if swapped:
        arrays, spacing = [array.T for array in arrays], spacing[::-1]
    if mirrored:
        arrays = [array[:, ::-1] for array in arrays]
    if upturned:
        arrays = [array[::-1] for array in arrays]
    return arrays, spacing, letters


def turns(orientation: str) -> tuple[bool, bool, bool, tuple[str, str]]:
    """What brings a slice (J, I) of an orientation to the way it is shown.

    Returns:
        whether rows and columns are swapped; then whether columns, and whether rows are reversed; the letters at the
        left and at the upper edge.
    """
    columns, rows = orientation[0], orientation[1]
    swapped = "RLAPSI".index(columns) // 2 > "RLAPSI".index(rows) // 2
    if swapped:
        columns, rows = rows, columns
    left, upper = ("RAS"["RLAPSI".index(letter) // 2] for letter in (columns, rows))
    return swapped, columns in "RAS", rows in "RAS", (left, upper)
