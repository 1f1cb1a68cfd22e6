"""Two models on the same images: paired differences of any measures with their intervals, and a paired test."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.training.classification_measures import RESAMPLES, SEED, interval
from MedAILib.training.compare_models import holm
from MedAILib.training.patient_draws import PatientDraws

# The measures of the first and of the second model, over these images (places, perhaps several times), those of them
# exchanged between the two models for which the second array is True.
Values = Callable[[NDArray[np.int64], NDArray[np.bool_]], tuple[Mapping[str, float], Mapping[str, float]]]


@dataclass(frozen=True)
class PairedDifference:
    """One measure of the second model against the first's.

    Args:
        key: the measure's.
        first, second: both values.
        difference: second minus first.
        low, high: 95 % interval of that, percentiles of resamples of the patients, the same for both models.
        p: two-sided permutation test: how often the difference is as large where it is tossed, patient by patient,
            which of the two said what.
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
class PairedComparison:
    """How a second model does beside a first: their names, and all differences."""

    first: str
    second: str
    rows: tuple[PairedDifference, ...]
    draws: PatientDraws


def paired_differences(draws: PatientDraws, values: Values) -> list[PairedDifference]:
    """Every measure that `values` gives, compared over all images, patient by patient."""
    random, count = np.random.default_rng(SEED), draws.count
    every = np.sort(draws.images(np.arange(count)))
    none = np.zeros(len(every), np.bool_)
    a, b = values(every, none)
    drawn, tossed = [], []
    for _ in range(RESAMPLES):
        drawn.append(_change(values, draws.images(random.integers(count, size=count)), none))
        tossed.append(_change(values, every, draws.spread(random.integers(2, size=count).astype(bool))))
    found = []
    for key in a:
        change = b[key] - a[key]
        others = np.abs([entry[key] for entry in tossed])
        p = math.nan if math.isnan(change) else (1 + float((others >= abs(change) - 1e-12).sum())) / (1 + RESAMPLES)
        low, high = interval(np.array([entry[key] for entry in drawn]))
        found.append(PairedDifference(key, a[key], b[key], change, low, high, p, p))
    return [replace(row, p_holm=p) for row, p in zip(found, holm([row.p for row in found]), strict=True)]


def paired_json(comparison: PairedComparison) -> dict[str, Any]:
    """A comparison ready for strict JSON; null where there is no value."""
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}
        for row in comparison.rows
    ]
    told = {"first": comparison.first, "second": comparison.second, "test": "paired permutation"}
    return {**told, "patients": comparison.draws.count if comparison.draws.shared else None, "rows": rows}


def paired_html(comparison: PairedComparison, titles: Mapping[str, str]) -> str:
    """The report's section: a table and how to read it; `titles` are the measures' names."""
    body = "".join(
        f"<tr><th>{titles[row.key]}</th><td>{_number(row.first)}</td><td>{_number(row.second)}</td>"
        f"<td>{_number(row.difference)}</td><td>{_number(row.low)} to {_number(row.high)}</td>"
        f"<td>{_number(row.p)}</td><td>{_number(row.p_holm)}</td></tr>"
        for row in comparison.rows
    )
    each = "patient" if comparison.draws.shared else "image"
    return f"""<section><h2>Comparison with {escape(comparison.second)}</h2>
<table><thead><tr><th>Measure</th><th>This</th><th>Other</th><th>Other − this</th><th>95 % interval</th><th>p</th>
<th>p (Holm)</th></tr></thead><tbody>{body}</tbody></table>
<p class="note">This is {escape(comparison.first)}, the other {escape(comparison.second)}, on the same images. Interval:
percentile bootstrap of the difference, {RESAMPLES} resamples of the {comparison.draws.told("images")}. p: two-sided
paired permutation test, {RESAMPLES} times tossed {each} by {each}
which of the two said what; corrected by Holm's method for this table.</p>
</section>
"""


def _change(values: Values, rows: NDArray[np.int64], swapped: NDArray[np.bool_]) -> dict[str, float]:
    a, b = values(rows, swapped)
    return {key: b[key] - a[key] for key in a}


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
