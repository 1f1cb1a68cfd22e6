"""Two models on the same cases: paired differences with their intervals, and a paired test."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from MedAILib.errors import InputError
from MedAILib.training.evaluate import MEASURES, RESAMPLES, SEED, Evaluation, Measure
from MedAILib.training.patient_draws import PatientDraws

# Dice, 95 % Hausdorff distance, surface Dice, size of the volume difference.
COMPARED = (*MEASURES[:3], replace(MEASURES[4], title="Volume difference, without sign (mL)"))
FEWEST = 6  # with fewer pairs the test can't fall below 0.05


@dataclass(frozen=True)
class Difference:
    """One measure of one structure, the second model's against the first's, over the cases where both are finite.

    Args:
        structure: its name.
        key: the measure's.
        title: the measure's, for people.
        decimals: how many are worth printing.
        cases: how many pairs.
        first: the first model's mean.
        second: the second model's mean.
        difference: mean of second minus first.
        low: of the 95 % interval of that, percentiles of 2000 resamples of the patients, seeded.
        high: of the interval.
        p: two-sided Wilcoxon signed-rank test of the patients' mean differences; 1 where none differs, NaN without
            pairs.
        p_holm: the same, corrected by Holm's method for all tests of the comparison.
        better: pairs in which the second model is better.
        worse: pairs in which it is worse.
        patients: of how many patients the pairs are.
    """

    structure: str
    key: str
    title: str
    decimals: int
    cases: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    better: int
    worse: int
    patients: int


@dataclass(frozen=True)
class Comparison:
    """How a second model does beside a first: their names, and all differences."""

    first: str
    second: str
    rows: tuple[Difference, ...]
    draws: PatientDraws


def compare_models(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations of the same cases, structure by structure.

    Raises:
        InputError: the cases differ, or the models have no structure in common.
    """
    if [result.case for result in first.cases] != [result.case for result in second.cases]:
        raise InputError("The two models were run on different cases; compare them on the same.")
    labels = {value: name for value, name in first.labels.items() if value in second.labels}
    if not labels:
        raise InputError(f"The models {first.spec.name} and {second.spec.name} have no structure in common.")
    rows = [_difference(first, second, value, name, measure) for value, name in labels.items() for measure in COMPARED]
    corrected = holm([row.p for row in rows])
    rows = [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
    return Comparison(first.spec.name, second.spec.name, tuple(rows), first.draws)


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down method; NaN stays and does not count."""
    told = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    result, largest = [math.nan] * len(values), 0.0
    for number, (p, place) in enumerate(told):
        largest = max(largest, min(1.0, p * (len(told) - number)))
        result[place] = largest
    return result


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison ready for strict JSON; null where there is no value."""
    rows = []
    for row in comparison.rows:
        plain = {key: value for key, value in asdict(row).items() if key not in ("title", "decimals")}
        rows.append({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()})
    told = {"first": comparison.first, "second": comparison.second, "test": "Wilcoxon signed-rank"}
    return {**told, "patients": comparison.draws.count if comparison.draws.shared else None, "rows": rows}


def comparison_html(comparison: Comparison) -> str:
    """The report's section: a table and how to read it."""
    body, before = [], ""
    for row in comparison.rows:
        head = f'<th scope="row">{escape(row.structure)}</th>' if row.structure != before else "<th></th>"
        first = " class=first" if row.structure != before else ""
        before = row.structure
        numbers = "".join(f"<td>{_number(x, row.decimals)}</td>" for x in (row.first, row.second, row.difference))
        interval = f"{_number(row.low, row.decimals)} to {_number(row.high, row.decimals)}"
        body.append(
            f'<tr{first}>{head}<td class="what">{escape(row.title)}</td><td>{row.cases}</td>{numbers}'
            f"<td>{interval}</td><td>{row.better} : {row.worse}</td><td>{_p(row.p)}</td><td>{_p(row.p_holm)}</td></tr>"
        )
    draws = comparison.draws
    few = min((row.patients for row in comparison.rows), default=0) < FEWEST
    what = "patients" if draws.shared else "pairs"
    caution = f" With fewer than {FEWEST} {what} the test can't fall below 0.05." if few else ""
    return f"""<section><h2>Comparison with {escape(comparison.second)}</h2>
<table class="narrow"><thead><tr><th>Structure</th><th class="what">Measure</th><th>Pairs</th><th>This</th>
<th>Other</th><th>Other − this</th><th>95 % interval</th><th>Better : worse</th><th>p</th><th>p (Holm)</th></tr></thead>
<tbody>{"".join(body)}</tbody></table>
<p class="note">This is {escape(comparison.first)}, the other {escape(comparison.second)}, on the same cases. Pairs are
cases in which both have a finite value; better and worse count those in which the other is. Interval: percentile
bootstrap of the mean paired difference, {RESAMPLES} resamples of the {draws.told("pairs")}. p: two-sided Wilcoxon
signed-rank test{" of the patients' mean differences" if draws.shared else ""}, and corrected by Holm's method for all
tests of this table.{caution}</p></section>
"""


def _difference(first: Evaluation, second: Evaluation, value: int, name: str, measure: Measure) -> Difference:
    a, b = (_values(evaluation, value, measure) for evaluation in (first, second))
    both = np.isfinite(a) & np.isfinite(b)
    whole = np.where(both, b, np.nan) - np.where(both, a, np.nan)
    a, b, change = a[both], b[both], whole[both]
    badness = measure.badness or abs
    signs = np.array([badness(y) - badness(x) for x, y in zip(a, b, strict=True)])
    low = high = p = math.nan
    sums, sizes = first.draws.sums(whole)
    if change.size:
        p = float(wilcoxon(sums / sizes).pvalue) if np.any(sums != 0) else 1.0
    if (means := first.draws.means(whole, RESAMPLES, SEED)).size:
        low, high = (float(x) for x in np.percentile(means, (2.5, 97.5)))
    mean_a, mean_b, mean = (float(x.mean()) if x.size else math.nan for x in (a, b, change))
    return Difference(
        name,
        measure.key,
        measure.title,
        measure.decimals,
        int(change.size),
        mean_a,
        mean_b,
        mean,
        low,
        high,
        p,
        p,
        int((signs < 0).sum()),
        int((signs > 0).sum()),
        len(sums),
    )


def _values(evaluation: Evaluation, label: int, measure: Measure) -> NDArray[np.float64]:
    values = evaluation.values(label, measure)
    return np.abs(values) if measure.badness is abs else values


def _number(value: float, decimals: int) -> str:
    return "–" if math.isnan(value) else f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"
