"""A classifier's evaluation on disk: `summary.json`, `cases.csv`, and `report.html` for people."""

import csv
import io
import math
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from MedAILib.training.classification_measures import RESAMPLES, Measured
from MedAILib.training.classification_plots import calibration_plot, decisions_plot, picture_plot, roc_plot
from MedAILib.training.decision import Decision
from MedAILib.training.evaluate_classifier import ClassifiedCase, ClassifierEvaluation, summary
from MedAILib.training.kind_measures import measures_of
from MedAILib.training.paired_test import PairedComparison, paired_html, paired_json
from MedAILib.training.plots import STYLE
from MedAILib.training.report_page import (
    facts_section,
    figure_html,
    png_data,
    report_page,
    report_title,
    write_report,
)
from MedAILib.training.several_labels import SEPARATOR

# Heads of the columns of each class.
HEADS = {
    "auc": "AUC",
    "ap": "AP",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "ece": "ECE",
}
# The figures that begin the report.
LEADS = {
    "multilabel": {"auc": "mean AUC", "ap": "mean average precision", "micro_f1": "F1 of all decisions"},
    "ordinal": {"kappa": "quadratic-weighted kappa", "mae": "mean absolute error", "accuracy": "accuracy"},
}
USUAL_LEADS = {"accuracy": "accuracy", "auc": "AUC"}
_DECISIONS = {
    "": "Decisions: images of each true class (rows), and their share of it.",
    "multilabel": "Decisions: for each label the images that have it, found or missed, and false alarms.",
}


def write_classifier_evaluation(
    evaluation: ClassifierEvaluation, folder: Path, command: str = "", comparison: PairedComparison | None = None
) -> None:
    """Write `summary.json`, `cases.csv` and `report.html` into a folder, all of them or none.

    Args:
        evaluation: what to write.
        folder: made if it is absent; other files in it are left alone.
        command: what the user typed, for the report.
        comparison: with a second classifier on the same images.

    Raises:
        OutputError: the folder or a file can't be written.
    """
    compared = {} if comparison is None else {"comparison": paired_json(comparison)}
    page = classifier_report(evaluation, command, comparison)
    write_report({**summary(evaluation), **compared}, _table(evaluation), page, folder)


def classifier_report(
    evaluation: ClassifierEvaluation, command: str = "", comparison: PairedComparison | None = None
) -> str:
    """The report as one HTML page that needs nothing else: plots and pictures are in it."""
    title = report_title(evaluation, len(evaluation.cases), "image")
    with matplotlib.rc_context(STYLE):
        plots = "".join(
            figure_html(plot(evaluation), caption)
            for plot, caption in (
                (roc_plot, "ROC: sensitivity against false alarms over all thresholds."),
                (decisions_plot, _DECISIONS.get(evaluation.classes.kind, _DECISIONS[""])),
                (calibration_plot, "Calibration: what was said and what was true; larger dots have more images."),
            )
        )
        worst = _worst(evaluation)
    compared = "" if comparison is None else paired_html(comparison, measures_of(evaluation.classes.kind).titles)
    sections = f"""<section><h2>Results</h2>{_results(evaluation)}{_unsure(evaluation)}</section>
{compared}<section><h2>Each {"label" if evaluation.intervals else "class"}</h2>{_each(evaluation)}</section>
<section><h2>Plots</h2><div class="pictures">{plots}</div></section>
{worst}{_facts(evaluation, command)}"""
    return report_page(title, _lead(evaluation), sections, _notes(evaluation))


def _table(evaluation: ClassifierEvaluation) -> str:
    """A row per image."""
    names, decision = evaluation.classes.names, evaluation.decision
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    shares = [f"probability {name}" for name in names]
    rows.writerow(["case", "reference", "predicted", "correct", *shares, "not_sure", "strangeness", "seconds", "file"])
    for case in evaluation.cases:
        rows.writerow(
            [
                case.image.name,
                SEPARATOR.join(_names(case.number, decision)),
                SEPARATOR.join(_names(case.decided, decision)),
                int(case.right),
                *(format(value, ".6g") for value in case.likely),
                case.unsure,
                "" if case.strangeness is None else format(case.strangeness, ".6g"),
                "" if case.seconds is None else format(case.seconds, ".4f"),
                case.image.source,
            ]
        )
    return text.getvalue()


def _lead(evaluation: ClassifierEvaluation) -> str:
    found = [
        f"{name} <b>{_number(evaluation.measured[key].value)}</b> ({_interval(evaluation.measured[key])})"
        for key, name in LEADS.get(evaluation.classes.kind, USUAL_LEADS).items()
    ]
    text = ", ".join(found)
    note = f'<p class="note">{escape(evaluation.note)}</p>' if evaluation.note else ""
    return f'<p class="lead">{text[0].upper()}{text[1:]}.</p>{note}'


def _results(evaluation: ClassifierEvaluation) -> str:
    titles = measures_of(evaluation.classes.kind).titles
    rows = "".join(
        f"<tr><th>{titles[key]}</th><td><b>{_number(found.value)}</b></td><td>{_interval(found)}</td></tr>"
        for key, found in evaluation.measured.items()
    )
    head = "<tr><th>Measure</th><th>Value</th><th>95 % interval</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _each(evaluation: ClassifierEvaluation) -> str:
    keys = measures_of(evaluation.classes.kind).shown
    head = "".join(f"<th>{HEADS[key]}</th>" for key in keys)
    told = evaluation.intervals or [{}] * len(evaluation.each)
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{int(found['cases'])}</td>"
        + "".join(f"<td>{_with_interval(found[key], intervals.get(key))}</td>" for key in keys)
        + "</tr>"
        for name, found, intervals in zip(evaluation.classes.names, evaluation.each, told, strict=True)
    )
    what = "Label" if evaluation.intervals else "Class"
    table = f"<table><thead><tr><th>{what}</th><th>Images</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    absent = [
        escape(name)
        for name, found in zip(evaluation.classes.names, evaluation.each, strict=True)
        if not found["cases"]
    ]
    if absent and evaluation.positive is None:
        table += (
            f'<p class="warning">No image has {", ".join(absent)}: what can\'t be measured is shown as –, and '
            f"{'these are' if len(absent) > 1 else 'it is'} left out of means.</p>"
        )
    return table


def _with_interval(value: float, found: Measured | None) -> str:
    if found is None or math.isnan(value):
        return _number(value)
    return f"{_number(value)}<br><small>{_interval(found)}</small>"


def _unsure(evaluation: ClassifierEvaluation) -> str:
    unsure = [case for case in evaluation.cases if case.unsure]
    if not unsure:
        return ""
    right = sum(case.right for case in unsure)
    listed = ", ".join(case.image.name for case in unsure[:5]) + (", …" if len(unsure) > 5 else "")
    return (
        f'<p class="warning">The model is not sure of {len(unsure)} of {len(evaluation.cases)} ({escape(listed)}); '
        f"the decision it leans to counts above, and is right for {right} of them.</p>"
    )


def _worst(evaluation: ClassifierEvaluation) -> str:
    """The section of pictures: the truths that the model believed least, decided right or wrong."""
    decision = evaluation.decision
    cells = "".join(
        f'<figure><img alt="{escape(case.image.name)}" src="{png_data(picture_plot(picture))}"><figcaption>'
        f"<b>{escape(case.image.name)}</b>, {'right' if case.right else 'wrong'}<br>"
        f"true: {escape(_likely(case, case.number, decision))}<br>"
        f"decided: {escape(_likely(case, case.decided, decision))}</figcaption></figure>"
        for case, picture in evaluation.worst
    )
    return f'<section><h2>The least sure of the truth</h2><div class="pictures">{cells}</div></section>\n'


def _names(number: NDArray[np.int64], decision: Decision) -> list[str]:
    """The class, or all labels, of an image."""
    return [name for name, has in zip(decision.names, decision.marks(number[None])[0], strict=True) if has]


def _likely(case: ClassifiedCase, number: NDArray[np.int64], decision: Decision) -> str:
    """A class, or labels, with the probability said of each."""
    said = dict(zip(decision.names, case.likely.tolist(), strict=True))
    return "; ".join(f"{name}, {said[name]:.1%}" for name in _names(number, decision)) or "none"


def _facts(evaluation: ClassifierEvaluation, command: str) -> str:
    seconds = [case.seconds for case in evaluation.cases if case.seconds is not None]
    sources = sorted({str(case.image.source.resolve().parent) for case in evaluation.cases})
    data = {
        "Data": sources[0] + (f" and {len(sources) - 1} more folders" if len(sources) > 1 else ""),
        "Part": evaluation.part,
        "Images": str(len(evaluation.cases)),
    }
    times = {}
    if seconds:
        times["Time per image"] = f"median {1000 * np.median(seconds):.1f} ms, longest {1000 * max(seconds):.1f} ms"
    return facts_section(evaluation, data, command, times)


def _notes(evaluation: ClassifierEvaluation) -> str:
    return f"""
{_whose(evaluation)}
<p><b>Expected calibration error</b>: how far the probability said and the share that was true are apart, over ten
bins; 0 is calibrated. A class's own (ECE) is of the probability of that class, and its accuracy that of telling it from
all others.</p>
<p><b>95 % interval</b>: percentile bootstrap, {RESAMPLES} resamples of the {evaluation.draws.told("images")}, seeded;
it tells how far a figure could be off by the choice of {"patients" if evaluation.draws.shared else "images"} alone, not
what another hospital would give.</p>
"""


def _whose(evaluation: ClassifierEvaluation) -> str:
    """What the figures of all classes together are of."""
    names, thresholds = evaluation.classes.names, evaluation.classes.thresholds
    what = "<b>Sensitivity, specificity, precision, F1 and the AUC</b>"
    kind = evaluation.classes.kind
    if kind == "multilabel":
        each = ", ".join(f"{escape(name)} {value:g}" for name, value in zip(names, thresholds, strict=True))
        return f"""<p><b>Means</b> are over the labels that any image has, each measured for itself and counting alike
(macro). <b>All decisions together</b> are measured as if they were of one label (micro), so that frequent labels count
more. An image may have no label.</p>
<p><b>AP</b>, average precision, is the mean of the precision over all sensitivities; a label guessed at random has the
share of the images that have it. A label is decided for from its threshold on: {each}.</p>"""
    text = f"{what} are means over the {'grades' if kind == 'ordinal' else 'classes'}, each against all others."
    if evaluation.positive is not None:
        text = f"{what} are of <i>{escape(names[1])}</i>, decided for from a probability of {thresholds[1]:g} on."
    if kind == "ordinal":
        return f"""<p><b>Grades</b> are in the order {escape(", ".join(names))}. <b>Quadratic-weighted kappa</b> is the
agreement with the true grades beyond chance, where a decision counts against it by the square of its distance; 1 is
full agreement, 0 that of chance. <b>Mean absolute error</b> is that distance in grades.</p>
<p>{text}</p>"""
    return f"<p>{text}</p>"


def _interval(found: Measured) -> str:
    return f"{_number(found.low)} to {_number(found.high)}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
