"""The figures of a classifier's report, drawn with matplotlib."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from MedAILib.training.classification_measures import bins_of, calibration_bins
from MedAILib.training.evaluate_classifier import ClassifierEvaluation
from MedAILib.training.plots import ACCENT, INK

SEVERAL = ("#2f6690", "#e69f00", "#2a9d6f", "#b4467d", "#56b4e9", "#c9510c", "#6a737d", "#8a7f2a")
ALARM = "#c9510c"
MOST_INSIDE, MOST_BESIDE = 6, 24  # curves whose names have room in the plot, and beside it
MOST_NAMED = 12  # classes; of more, the numbers in the table of decisions would not be readable


def roc_plot(evaluation: ClassifierEvaluation) -> Figure:
    """Sensitivity against false alarms over all thresholds; of more than two classes, each against the rest.

    Of several labels each has a dot at its threshold.
    """
    figure = Figure(figsize=(4.1, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="#c9ced4", linewidth=0.8, linestyle="--")
    names, likely, kind = evaluation.classes.names, evaluation.likely, evaluation.classes.kind
    marks = evaluation.decision.marks(evaluation.numbers)
    binary = evaluation.positive is not None
    shown = [1] if binary else range(len(names))
    for place, number in enumerate(shown):
        truth = marks[:, number]
        if not 0 < truth.sum() < len(truth):
            continue
        alarms, found, _ = roc_curve(truth, likely[:, number])
        auc = evaluation.each[number]["auc"]
        color = ACCENT if binary else SEVERAL[place % len(SEVERAL)]
        shape: dict[str, Any] = {"color": color, "linestyle": "-" if place < len(SEVERAL) else "--"}
        axes.plot(alarms, found, linewidth=1.6, label=f"{names[number]}, AUC {auc:.3f}", **shape)
        at = evaluation.each[number]
        if binary:
            axes.plot(1 - at["specificity"], at["sensitivity"], "o", color=INK, markersize=5, label="the threshold")
        elif kind == "multilabel":
            axes.plot(1 - at["specificity"], at["sensitivity"], "o", color=color, markersize=4)
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if len(names) <= MOST_INSIDE:
        axes.legend(loc="lower right", frameon=False, fontsize=7.5)
    elif len(names) <= MOST_BESIDE:
        figure.set_size_inches(6, 3.8)
        figure.legend(loc="outside right center", frameon=False, fontsize=7)
    return figure


def decisions_plot(evaluation: ClassifierEvaluation) -> Figure:
    """What was decided for what was true, as the kind of decision has it."""
    return (labels_plot if evaluation.classes.kind == "multilabel" else confusion_plot)(evaluation)


def labels_plot(evaluation: ClassifierEvaluation) -> Figure:
    """For each label how many images that have it were found and missed, and how many false alarms there were."""
    names, table = evaluation.classes.names, evaluation.confusion
    places, found, missed, alarms = np.arange(len(names)), table[:, 1, 1], table[:, 1, 0], table[:, 0, 1]
    figure = Figure(figsize=(4.1, max(2.2, 0.9 + 0.28 * len(names))), layout="constrained")
    axes = figure.subplots()
    axes.barh(places, found, color=ACCENT, label="found")
    axes.barh(places, missed, left=found, color="#c9ced4", label="missed")
    axes.barh(places, -alarms, color=ALARM, label="false alarms")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlabel("Images")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=7.5)
    return figure


def confusion_plot(evaluation: ClassifierEvaluation) -> Figure:
    """How many images of each true class were decided to be each class; shades are shares of the true class."""
    names, table = evaluation.classes.names, evaluation.confusion
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.1, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= MOST_NAMED:
        for (row, column), count in np.ndenumerate(table):
            dark = share[row, column] > 0.55
            text = f"{count}\n{share[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK, fontsize=9)
    wrapped = [name.replace(" ", "\n", 1) if len(name) > 10 else name for name in names]
    axes.set_xticks(range(len(names)), wrapped, rotation=90 if len(names) > 5 else 0)
    axes.set_yticks(range(len(names)), wrapped)
    axes.set(xlabel="Decided", ylabel="True")
    axes.spines[:].set_visible(False)
    return figure


def calibration_plot(evaluation: ClassifierEvaluation) -> Figure:
    """What was said against what was true, a dot for each tenth of the probability; its size tells of the cases."""
    kind = evaluation.classes.kind
    if kind == "multilabel":
        bins = bins_of(evaluation.likely.ravel(), evaluation.numbers.ravel() == 1)
    else:
        bins = calibration_bins(evaluation.numbers, evaluation.likely)
    figure = Figure(figsize=(4.1, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="#c9ced4", linewidth=0.8, linestyle="--")
    said, true, cases = (np.array([getattr(x, key) for x in bins]) for key in ("said", "true", "cases"))
    axes.plot(said, true, color=ACCENT, linewidth=1)
    axes.scatter(said, true, s=12 + 160 * cases / cases.sum(), color=ACCENT, zorder=3)
    what = "a label" if kind == "multilabel" else evaluation.positive or "the likeliest class"
    axes.set(xlabel=f"Probability of {what}", ylabel="Share that was true")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.04), aspect="equal")
    return figure


def picture_plot(picture: NDArray[Any]) -> Figure:
    """A picture (J, I) as it is."""
    figure = Figure(figsize=(3, 3), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    low, high = np.percentile(picture, (0.5, 99.5))
    axes.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    return figure
