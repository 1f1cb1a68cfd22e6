"""A detector's evaluation on disk: `summary.json`, `cases.csv`, and `report.html` for people."""

import csv
import io
import math
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from MedAILib.training.classification_measures import RESAMPLES, Measured
from MedAILib.training.detection_measures import FOUND_FROM, MEASURES, PRECISIONS, RATES, at
from MedAILib.training.detection_pictures import boxes_picture
from MedAILib.training.evaluate_detector import BoxedPicture, DetectorCase, DetectorEvaluation, summary
from MedAILib.training.paired_test import PairedComparison, paired_html, paired_json
from MedAILib.training.plots import ACCENT, PREDICTED, REFERENCE, STYLE
from MedAILib.training.report_page import (
    facts_section,
    figure_html,
    png_data,
    report_page,
    report_title,
    write_report,
)

AXES = ("i", "j", "k")


def write_detector_evaluation(
    evaluation: DetectorEvaluation, folder: Path, command: str = "", comparison: PairedComparison | None = None
) -> None:
    """Write `summary.json`, `cases.csv` and `report.html` into a folder, all of them or none.

    Args:
        evaluation: what to write.
        folder: made if it is absent; other files in it are left alone.
        command: what the user typed, for the report.
        comparison: with a second detector on the same images.

    Raises:
        OutputError: the folder or a file can't be written.
    """
    compared = {} if comparison is None else {"comparison": paired_json(comparison)}
    page = detector_report(evaluation, command, comparison)
    write_report(summary(evaluation) | compared, _table(evaluation), page, folder)


def detector_report(
    evaluation: DetectorEvaluation, command: str = "", comparison: PairedComparison | None = None
) -> str:
    """The report as one HTML page that needs nothing else: the plot is in it."""
    title = report_title(evaluation, len(evaluation.cases), "image")
    with matplotlib.rc_context(STYLE):
        plot = figure_html(
            froc_plot(evaluation),
            "FROC: the share of the reference's boxes that is found, against false findings per image, over all "
            "scores; dots, with 95 % intervals, are the rates that the FROC score is the mean of.",
        )
    lead = (
        f'<p class="lead">mAP at an overlap of 0.5 <b>{_number(evaluation.measured["mAP@0.5"].value)}</b>, '
        f"FROC score <b>{_number(evaluation.measured['froc'].value)}</b>.</p>"
    )
    compared = "" if comparison is None else paired_html(comparison, MEASURES)
    sections = f"""<section><h2>Results</h2>{_figures(evaluation)}</section>
{compared}<section><h2>Each class</h2>{_classes(evaluation)}</section>
<section><h2>Sensitivity</h2>{_rates(evaluation)}<div style="max-width:460px">{plot}</div></section>
{_worst(evaluation)}<section><h2>Each image</h2>{_images(evaluation)}</section>
{_facts(evaluation, command)}"""
    return report_page(title, lead, sections, _notes(evaluation))


def froc_plot(evaluation: DetectorEvaluation) -> Figure:
    """Sensitivity against false findings per image."""
    false, sensitivity = evaluation.curve
    told = [evaluation.measured[at(rate)] for rate in RATES]
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    most = max(*RATES, float(false[-1]))
    axes.plot(np.append(false, most), np.append(sensitivity, sensitivity[-1]), color=ACCENT, linewidth=1.6)
    values = np.array([found.value for found in told])
    spread = np.array([[found.value - found.low, found.high - found.value] for found in told]).T
    axes.errorbar(RATES, values, np.maximum(spread, 0), fmt="o", color=ACCENT, markersize=4, linewidth=0.8, capsize=2)
    axes.set_xscale("symlog", linthresh=RATES[0], base=2)
    axes.set_xticks([0, *RATES], ["0", "1/8", "1/4", "1/2", *(f"{rate:g}" for rate in RATES[3:])])
    axes.minorticks_off()
    axes.set(xlabel="False findings per image", ylabel="Sensitivity", ylim=(-0.02, 1.05), xlim=(0, most * 1.1))
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    return figure


def _figures(evaluation: DetectorEvaluation) -> str:
    rows = "".join(f"<tr><th>{MEASURES[key]}</th>{_cells(evaluation.measured[key])}</tr>" for key in MEASURES)
    head = "<tr><th>Measure</th><th>Value</th><th>95 % interval</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _cells(found: Measured) -> str:
    return f"<td><b>{_number(found.value)}</b></td><td>{_number(found.low)} to {_number(found.high)}</td>"


def _worst(evaluation: DetectorEvaluation) -> str:
    """The section of pictures; nothing where every image is right throughout."""
    if not evaluation.worst:
        return ""
    cells = "".join(_picture_cell(evaluation, picture) for picture in evaluation.worst)
    return f"""<section><h2>The images with most boxes missed or false</h2>
<div class="pictures">{cells}<p class="key"><b class="dashed" style="--c:{REFERENCE}">reference</b>
<b style="--c:{PREDICTED}">model, found</b><b class="dotted" style="--c:{PREDICTED}">model, false</b>
The slice through the middle of a box that was missed or false, counted from 0.
A letter names the side of the patient at its edge.</p></div></section>
"""


def _picture_cell(evaluation: DetectorEvaluation, picture: BoxedPicture) -> str:
    result = next(result for result in evaluation.cases if result.case.name == picture.case)
    drawn = png_data(boxes_picture(picture))
    return (
        f'<figure><img alt="Slice {picture.slice_k} of {escape(picture.case)} with boxes" '
        f'src="{drawn}"><figcaption><b>{escape(picture.case)}</b>, slice {picture.slice_k}<br>'
        f"{_counts(result)}</figcaption></figure>"
    )


def _counts(result: DetectorCase) -> str:
    return ", ".join(f"{result.count(kind)} {kind}" for kind in ("found", "missed", "false"))


def _table(evaluation: DetectorEvaluation) -> str:
    """A row per box, the model's and those that were missed."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    places = [f"center_{axis}" for axis in "ras"] + [f"size_{axis}" for axis in AXES]
    rows.writerow(["case", "label", "outcome", "score", "overlap", *places, "image"])
    for result in evaluation.cases:
        for box in result.boxes:
            score = "" if math.isnan(box.score) else f"{box.score:.6g}"
            numbers = [f"{number:.4f}" for number in (*box.center_ras, *box.size_mm)]
            image = ";".join(str(file) for file in result.case.images)
            rows.writerow([result.case.name, box.label, box.outcome, score, f"{box.overlap:.4f}", *numbers, image])
    return text.getvalue()


def _classes(evaluation: DetectorEvaluation) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{figures['references']:g}</td>"
        + "".join(f"<td>{_number(figures[key])}</td>" for key in PRECISIONS)
        + "</tr>"
        for name, figures in evaluation.each.items()
    )
    head = "".join(f"<th>{MEASURES[key].replace('mAP', 'AP')}</th>" for key in PRECISIONS)
    head = f"<tr><th>Class</th><th>Reference boxes</th>{head}</tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _rates(evaluation: DetectorEvaluation) -> str:
    rows = "".join(f"<tr><th>{rate:g}</th>{_cells(evaluation.measured[at(rate)])}</tr>" for rate in RATES)
    head = "<tr><th>False findings per image</th><th>Sensitivity</th><th>95 % interval</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _images(evaluation: DetectorEvaluation) -> str:
    rows = ""
    for result in evaluation.cases:
        cells = "".join(f"<td>{result.count(kind)}</td>" for kind in ("found", "missed", "false"))
        rows += f"<tr><th>{escape(result.case.name)}</th>{cells}<td>{result.seconds:.1f}</td></tr>"
    head = "<tr><th>Image</th><th>Found</th><th>Missed</th><th>False</th><th>Seconds</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _facts(evaluation: DetectorEvaluation, command: str) -> str:
    seconds = [result.seconds for result in evaluation.cases]
    data = {"Data": str(evaluation.cases[0].case.images[0].resolve().parent), "Images": str(len(seconds))}
    time = f"median {np.median(seconds):.2f} s, longest {max(seconds):.2f} s (the model alone)"
    return facts_section(evaluation, data, command, {"Time per image": time})


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _notes(evaluation: DetectorEvaluation) -> str:
    """How to read the tables."""
    return f"""
<p><b>Overlap</b>: intersection over union of two boxes, by volume in millimetres. <b>AP</b>: average precision, the
area under precision against recall as COCO interpolates it, of the 100 surest boxes of an image; a box counts as found
from that overlap on. <b>mAP</b>: the mean over the classes that have reference boxes; at 0.1 to 0.5 also over the
overlaps 0.1, 0.15, … 0.5.</p>
<p><b>FROC score</b>: the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false findings per image, as in LUNA16; a box
counts as found from an overlap of {FOUND_FROM:g} on, as do those in the table of images, which has every box that the
model's own limits let through. Rates beyond all the model's false findings have the sensitivity of all its boxes.</p>
<p><b>95 % interval</b>: percentile bootstrap, {RESAMPLES} resamples of the {evaluation.draws.told("images")}, seeded;
it tells how far a figure could be off by the choice of {"patients" if evaluation.draws.shared else "images"} alone.</p>
"""
