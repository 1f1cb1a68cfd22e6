"""A detector's evaluation on disk: `summary.json`, `cases.csv`, and `report.html` for people."""

import csv
import io
import json
import math
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from MedAILib.training.evaluate_detector import FOUND_FROM, DetectorEvaluation, at_rates, summary
from MedAILib.training.plots import ACCENT, STYLE
from MedAILib.training.report import CSS, figure_html, write_together

AXES = ("i", "j", "k")


def write_detector_evaluation(evaluation: DetectorEvaluation, folder: Path, command: str = "") -> None:
    """Write `summary.json`, `cases.csv` and `report.html` into a folder, all of them or none.

    Args:
        evaluation: what to write.
        folder: made if it is absent; other files in it are left alone.
        command: what the user typed, for the report.

    Raises:
        OutputError: the folder or a file can't be written.
    """
    write_together(
        {
            "summary.json": json.dumps(summary(evaluation), indent=2, allow_nan=False, ensure_ascii=False) + "\n",
            "cases.csv": _table(evaluation),
            "report.html": detector_report(evaluation, command),
        },
        folder,
    )


def detector_report(evaluation: DetectorEvaluation, command: str = "") -> str:
    """The report as one HTML page that needs nothing else: the plot is in it."""
    spec, count = evaluation.spec, len(evaluation.cases)
    title = f"{spec.title or spec.name} on {count} image{'s' if count != 1 else ''}"
    with matplotlib.rc_context(STYLE):
        plot = figure_html(
            froc_plot(evaluation),
            "FROC: the share of the reference's boxes that is found, against false findings per image, over all "
            "scores; dots are the rates that the score is the mean of.",
        )
    lead = (
        f'<p class="lead">mAP at an overlap of 0.5 <b>{_number(evaluation.mean_precision(0.5))}</b>, '
        f"FROC score <b>{_number(evaluation.froc.score)}</b>.</p>"
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{CSS}</style></head><body><main>
<header><p class="over">MedAI evaluation report</p><h1>{escape(title)}</h1>{lead}</header>
<section><h2>Each class</h2>{_classes(evaluation)}</section>
<section><h2>Sensitivity</h2>{_rates(evaluation)}<div style="max-width:460px">{plot}</div></section>
<section><h2>Each image</h2>{_images(evaluation)}</section>
<section><h2>Model and data</h2>{_facts(evaluation, command)}</section>
<section class="notes"><h2>How to read the figures</h2>{NOTES}</section>
<footer>For research use only. Not a medical device.</footer>
</main></body></html>
"""


def froc_plot(evaluation: DetectorEvaluation) -> Figure:
    """Sensitivity against false findings per image."""
    froc, told = evaluation.froc, at_rates(evaluation.froc)
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    most = max(*told, float(froc.false_per_image[-1]))
    rates = np.append(froc.false_per_image, most)
    axes.plot(rates, np.append(froc.sensitivity, froc.sensitivity[-1]), color=ACCENT, linewidth=1.6)
    axes.plot(list(told), list(told.values()), "o", color=ACCENT, markersize=4)
    axes.set_xscale("symlog", linthresh=0.125, base=2)
    axes.set_xticks([0, *told], ["0", *(f"{rate:g}" for rate in told)])
    axes.set(xlabel="False findings per image", ylabel="Sensitivity", ylim=(-0.02, 1.02), xlim=(0, most * 1.05))
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    return figure


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
        f"<tr><th>{escape(name)}</th><td>{evaluation.references[name]}</td><td><b>{_number(by_limit[0.5])}</b></td>"
        f"<td>{_number(by_limit[0.1])}</td></tr>"
        for name, by_limit in evaluation.precision.items()
    )
    head = "<tr><th>Class</th><th>Reference boxes</th><th>AP at 0.5</th><th>AP at 0.1</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _rates(evaluation: DetectorEvaluation) -> str:
    told = at_rates(evaluation.froc)
    head = "".join(f"<th>{rate:g}</th>" for rate in told)
    cells = "".join(f"<td>{_number(value)}</td>" for value in told.values())
    return (
        f"<table><thead><tr><th>False findings per image</th>{head}</tr></thead>"
        f"<tbody><tr><th>Sensitivity</th>{cells}</tr></tbody></table>"
    )


def _images(evaluation: DetectorEvaluation) -> str:
    rows = ""
    for result in evaluation.cases:
        counts = [sum(box.outcome == kind for box in result.boxes) for kind in ("found", "missed", "false")]
        cells = "".join(f"<td>{count}</td>" for count in counts)
        rows += f"<tr><th>{escape(result.case.name)}</th>{cells}<td>{result.seconds:.1f}</td></tr>"
    head = "<tr><th>Image</th><th>Found</th><th>Missed</th><th>False</th><th>Seconds</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _facts(evaluation: DetectorEvaluation, command: str) -> str:
    known, seconds = evaluation.provenance, [result.seconds for result in evaluation.cases]
    facts = {
        "Model": f"{evaluation.spec.name}, version {evaluation.spec.version}",
        "SHA-256": known.get("sha256", ""),
        "Data": str(evaluation.cases[0].case.images[0].resolve().parent),
        "Images": str(len(seconds)),
        "Command": command,
        "Started": f"{evaluation.started.day} {evaluation.started:%B %Y, %H:%M} UTC",
        "Device": known.get("device", ""),
        "Time per image": f"median {np.median(seconds):.2f} s, longest {max(seconds):.2f} s (the model alone)",
        "Software": ", ".join(f"{key} {known[key]}" for key in ("medai", "torch", "python") if key in known),
    }
    rows = "".join(
        f"<dt>{key}</dt><dd{' class=code' if key in ('SHA-256', 'Data', 'Command') else ''}>{escape(value)}</dd>"
        for key, value in facts.items()
        if value
    )
    return f"<dl>{rows}</dl>"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


NOTES = f"""
<p><b>Overlap</b>: intersection over union of two boxes, by volume in millimetres. <b>AP</b>: average precision, the
area under precision against recall as COCO interpolates it, of the 100 surest boxes of an image; a box counts as found
from that overlap on. <b>mAP</b>: the mean over the classes that have reference boxes.</p>
<p><b>FROC score</b>: the mean sensitivity at a quarter, a half, 1, 2, 4 and 8 false findings per image; a box counts as
found from an overlap of {FOUND_FROM:g} on, as do those in the table of images, which has every box that the model's own
limits let through.</p>
"""
