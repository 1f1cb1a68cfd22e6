"""An evaluation on disk: `summary.json` in nnU-Net's layout, `cases.csv`, and `report.html` for people."""

import csv
import io
import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np

from MedAILib.training.compare_models import Comparison, comparison_html, comparison_json
from MedAILib.training.evaluate import (
    MEASURES,
    RESAMPLES,
    CaseResult,
    Evaluation,
    Measure,
    Picture,
    finite_mean,
    summary,
)
from MedAILib.training.plots import (
    HEADLINE,
    PANELS_AT_MOST,
    PREDICTED,
    REFERENCE,
    STYLE,
    bland_altman,
    box_plots,
    outlines,
)
from MedAILib.training.report_page import (
    facts_section,
    figure_html,
    png_data,
    report_page,
    report_title,
    write_report,
)


def write_evaluation(
    evaluation: Evaluation, folder: Path, command: str = "", comparison: Comparison | None = None
) -> None:
    """Write an evaluation's three files, all of them or none.

    Args:
        evaluation: what to write.
        folder: gets `summary.json`, `cases.csv` and `report.html`.
        command: what the user typed, for the report.
        comparison: with a second model on the same cases.

    Raises:
        OutputError: the folder or a file can't be written.
    """
    compared = {} if comparison is None else {"comparison": comparison_json(comparison)}
    page = report(evaluation, command, comparison)
    write_report(summary(evaluation) | compared, _table(evaluation), page, folder)


def report(evaluation: Evaluation, command: str = "", comparison: Comparison | None = None) -> str:
    """The report as one HTML page that needs nothing else: plots and pictures are in it."""
    title = report_title(evaluation, len(evaluation.cases), "case")
    with matplotlib.rc_context(STYLE):
        boxes = figure_html(
            box_plots(evaluation),
            "Distribution over the cases: one dot per case, boxes from the lower "
            "to the upper quartile with the median, whiskers to 1.5 times that range.",
        )
        volumes = figure_html(bland_altman(evaluation), _volumes_caption(evaluation))
    sections = f"""<section><h2>Results</h2>{_headline_table(evaluation)}{_missed(evaluation)}</section>
{"" if comparison is None else comparison_html(comparison)}<section><h2>Distribution</h2>{boxes}</section>
<section><h2>Volumes</h2>{volumes}</section>
{_worst(evaluation)}{_facts(evaluation, command)}"""
    return report_page(title, _lead(evaluation), sections, _notes(evaluation))


def _table(evaluation: Evaluation) -> str:
    """A row per case and structure; empty where a value does not exist, "inf" where it is infinite."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    keys = [measure.key for measure in MEASURES]
    rows.writerow(["case", "label", "name", *keys, "reference_mL", "predicted_mL", "seconds", "image", "reference"])
    for result in evaluation.cases:
        for label, agreement in result.agreements.items():
            numbers = [measure.of(agreement) for measure in MEASURES] + [agreement.reference_ml, agreement.predicted_ml]
            rows.writerow(
                [
                    result.case.name,
                    label,
                    evaluation.labels[label],
                    *(
                        "" if math.isnan(number) else format(number, ".6g") if isinstance(number, float) else number
                        for number in numbers
                    ),
                    format(result.seconds, ".3f"),
                    ";".join(str(file) for file in result.case.images),
                    result.case.label,
                ]
            )
    return text.getvalue()


def _lead(evaluation: Evaluation) -> str:
    """The result in a sentence: each structure's mean Dice, or of many structures the mean and both ends."""
    dice = MEASURES[0]
    means = {label: finite_mean(evaluation.values(label, dice)) for label in evaluation.labels}
    told = {label: mean for label, mean in means.items() if not math.isnan(mean)}
    parts = {label: f"{escape(evaluation.labels[label])} <b>{_number(mean, dice)}</b>" for label, mean in means.items()}
    if len(parts) <= 4 or not told:
        text = f"Mean Dice: {', '.join(parts.values())}."
    else:
        text = (
            f"Mean Dice over {len(told)} structures <b>{_number(finite_mean(list(told.values())), dice)}</b>, from "
            f"{parts[min(told, key=lambda x: told[x])]} to {parts[max(told, key=lambda x: told[x])]}."
        )
    return f'<p class="lead">{text}</p>'


def _headline_table(evaluation: Evaluation) -> str:
    rows = []
    for label, name in evaluation.labels.items():
        for number, measure in enumerate(HEADLINE):
            told = evaluation.statistics(label, measure)
            head = f'<th rowspan="{len(HEADLINE)}" scope="rowgroup">{escape(name)}</th>' if number == 0 else ""
            cells = (
                f"<td>{told.cases}</td>"
                f"<td><b>{_number(told.mean, measure)}</b></td>"
                f"<td>{_number(told.low, measure)} to {_number(told.high, measure)}</td>"
                + "".join(f"<td>{_number(value, measure)}</td>" for value in (told.sd, told.median, told.worst))
            )
            rows.append(f'<tr{" class=first" if head else ""}>{head}<td class="what">{measure.title}</td>{cells}</tr>')
    return (
        '<table><thead><tr><th>Structure</th><th class="what">Measure</th><th>Cases</th><th>Mean</th>'
        "<th>95 % interval</th><th>SD</th><th>Median</th><th>Worst</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _missed(evaluation: Evaluation) -> str:
    """A sentence on structures that are in only one of reference and prediction; nothing where there are none."""
    sentences = []
    for label, name in evaluation.labels.items():
        overlaps = {result.case.name: result.agreements[label].overlap for result in evaluation.cases}
        for what, cases in (
            ("not found", [case for case, x in overlaps.items() if x.n_ref and not x.n_pred]),
            ("found where the reference has none", [case for case, x in overlaps.items() if x.n_pred and not x.n_ref]),
        ):
            if cases:
                listed = ", ".join(cases[:5]) + (", …" if len(cases) > 5 else "")
                sentences.append(f"{escape(name)} was {what} in {len(cases)} of {len(overlaps)} ({escape(listed)}).")
    if not sentences:
        return ""
    return f'<p class="warning">{" ".join(sentences)} Distances are infinite there and left out of mean and SD.</p>'


def _number(value: float, measure: Measure) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    rounded = round(value, measure.decimals) + 0.0  # no minus before a zero
    return f"{rounded:.{measure.decimals}f}".replace("-", "−")


def _facts(evaluation: Evaluation, command: str) -> str:
    seconds = [result.seconds for result in evaluation.cases]
    data = {"Data": str(_data_folder(evaluation.cases)), "Cases": str(len(seconds))}
    time = f"median {np.median(seconds):.2f} s, longest {max(seconds):.2f} s (the model alone)"
    return facts_section(evaluation, data, command, {"Time per case": time})


def _data_folder(cases: Sequence[CaseResult]) -> Path:
    files = [path.resolve() for result in cases for path in (result.case.label, *result.case.images)]
    return Path(os.path.commonpath([file.parent for file in files]))


def _volumes_caption(evaluation: Evaluation) -> str:
    few = len(evaluation.labels) > PANELS_AT_MOST
    return (
        "Bland-Altman plot: prediction minus reference against the mean of both; the line is the mean difference, the "
        "dashed lines are 1.96 standard deviations from it."
        + (f" The {PANELS_AT_MOST} structures of lowest mean Dice." if few else "")
    )


def _worst(evaluation: Evaluation) -> str:
    """The section of pictures; nothing where no case has any structure."""
    if not evaluation.worst:
        return ""
    cells = "".join(_picture_cell(evaluation, picture) for picture in evaluation.worst)
    return f"""<section><h2>The cases of lowest mean Dice</h2>
<div class="pictures">{cells}<p class="key"><b style="--c:{REFERENCE}">reference</b>
<b style="--c:{PREDICTED}">prediction</b>The slice through the middle of the structure of lowest Dice, counted from 0.
A letter names the side of the patient at its edge.</p></div></section>
"""


def _picture_cell(evaluation: Evaluation, picture: Picture) -> str:
    result = next(result for result in evaluation.cases if result.case.name == picture.case)
    dice = ", ".join(
        f"{escape(evaluation.labels[label])} {_number(agreement.overlap.dice, MEASURES[0])}"
        for label, agreement in sorted(result.agreements.items(), key=lambda item: item[1].overlap.dice)[:4]
    )
    return (
        f'<figure><img alt="Slice {picture.slice_k} of {escape(picture.case)} with outlines" '
        f'src="{png_data(outlines(picture))}"><figcaption><b>{escape(picture.case)}</b>, slice {picture.slice_k}<br>'
        f"Dice: {dice}</figcaption></figure>"
    )


def _notes(evaluation: Evaluation) -> str:
    """How to read the tables."""
    return f"""
<p><b>Dice</b>: twice the shared voxels over the sum of both structures' voxels; 1 is the same, 0 is nothing shared.
A case in which a structure is absent from reference and prediction does not count for that structure.</p>
<p><b>95 % Hausdorff distance</b>: 95 % of each surface's area lies closer than this to the other surface; the larger of
the two directions. <b>Surface Dice at 1 mm</b>: the share of both surfaces' area that lies within 1 mm of the other.
Surfaces and areas are those of Nikolov et al., J Med Internet Res 2021;23:e26151.</p>
<p><b>Volume difference</b>: prediction minus reference, so a mean above 0 tells of structures drawn too large; its
worst value is the one farthest from 0.</p>
<p><b>Mean, SD</b> and the interval are over the cases with a finite value. <b>95 % interval</b>: percentile bootstrap
of the mean, {RESAMPLES} resamples of the {evaluation.draws.told("cases")}, seeded; it tells how far the mean could be
off by the choice of {"patients" if evaluation.draws.shared else "cases"} alone.</p>
"""
