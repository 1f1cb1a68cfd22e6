"""Two detectors on the same images: paired differences of mAP and FROC with their intervals, and a paired test."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.training.classification_measures import RESAMPLES, SEED, interval
from MedAILib.training.compare_models import holm
from MedAILib.training.detection_measures import MEASURES, Matches, measure
from MedAILib.training.evaluate_detector import DetectorEvaluation


@dataclass(frozen=True)
class DetectorDifference:
    """One measure of the second detector against the first's.

    Args:
        key: the measure's, of `detection_measures.MEASURES`.
        first, second: both values.
        difference: second minus first.
        low, high: 95 % interval of that, percentiles of resamples of the images, the same for both detectors.
        p: two-sided permutation test: how often the difference is as large where it is tossed, image by image, which
            of the two found what.
        p_holm: the same, corrected by Holm's method for all measures.
    """

    key: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class DetectorComparison:
    """How a second detector does beside a first: their names, and all differences."""

    first: str
    second: str
    rows: tuple[DetectorDifference, ...]


def compare_detectors(first: DetectorEvaluation, second: DetectorEvaluation) -> DetectorComparison:
    """Compare two evaluations of the same images.

    Raises:
        InputError: the images or the classes differ.
    """
    if [one.case for one in first.cases] != [one.case for one in second.cases]:
        raise InputError("The two models were run on different images; compare them on the same.")
    if first.spec.findings != second.spec.findings:
        raise InputError(
            f"The models {first.spec.name} and {second.spec.name} look for different classes "
            f"({', '.join(first.spec.findings)}; {', '.join(second.spec.findings)}); compare two of the same."
        )
    rows = differences(first.matches, second.matches, len(first.spec.findings))
    return DetectorComparison(first.spec.name, second.spec.name, tuple(rows))


def differences(first: Sequence[Matches], second: Sequence[Matches], classes: int) -> list[DetectorDifference]:
    """Every one of `MEASURES`, compared image by image."""
    count, random = len(first), np.random.default_rng(SEED)
    a, b = measure(first, classes), measure(second, classes)
    drawn, tossed = [], []
    for _ in range(RESAMPLES):
        row = random.integers(count, size=count)
        drawn.append(_change([first[n] for n in row], [second[n] for n in row], classes))
        swapped = random.integers(2, size=count).astype(bool)
        pairs = [(y, x) if swap else (x, y) for x, y, swap in zip(first, second, swapped, strict=True)]
        tossed.append(_change([x for x, _ in pairs], [y for _, y in pairs], classes))
    found = []
    for key in MEASURES:
        change = b[key] - a[key]
        others = np.abs([entry[key] for entry in tossed])
        p = math.nan if math.isnan(change) else (1 + float((others >= abs(change) - 1e-12).sum())) / (1 + RESAMPLES)
        low, high = interval(np.array([entry[key] for entry in drawn]))
        found.append(DetectorDifference(key, a[key], b[key], change, low, high, p, p))
    return [replace(row, p_holm=p) for row, p in zip(found, holm([row.p for row in found]), strict=True)]


def comparison_json(comparison: DetectorComparison) -> dict[str, Any]:
    """A comparison ready for strict JSON; null where there is no value."""
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}
        for row in comparison.rows
    ]
    return {"first": comparison.first, "second": comparison.second, "test": "paired permutation", "rows": rows}


def comparison_html(comparison: DetectorComparison) -> str:
    """The report's section: a table and how to read it."""
    body = "".join(
        f"<tr><th>{MEASURES[row.key]}</th><td>{_number(row.first)}</td><td>{_number(row.second)}</td>"
        f"<td>{_number(row.difference)}</td><td>{_number(row.low)} to {_number(row.high)}</td>"
        f"<td>{_number(row.p)}</td><td>{_number(row.p_holm)}</td></tr>"
        for row in comparison.rows
    )
    return f"""<section><h2>Comparison with {escape(comparison.second)}</h2>
<table><thead><tr><th>Measure</th><th>This</th><th>Other</th><th>Other − this</th><th>95 % interval</th><th>p</th>
<th>p (Holm)</th></tr></thead><tbody>{body}</tbody></table>
<p class="note">This is {escape(comparison.first)}, the other {escape(comparison.second)}, on the same images. Interval:
percentile bootstrap of the difference, {RESAMPLES} resamples of the images. p: two-sided paired permutation test,
{RESAMPLES} times tossed image by image which of the two found what; corrected by Holm's method for this table.</p>
</section>
"""


def _change(first: Sequence[Matches], second: Sequence[Matches], classes: int) -> dict[str, float]:
    a, b = measure(first, classes), measure(second, classes)
    return {key: b[key] - a[key] for key in MEASURES}


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
