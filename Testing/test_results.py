"""What a classification decides from its numbers, and what it refuses to be made of."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MedAILib.classification_record import in_words, summary
from MedAILib.errors import InputError
from MedAILib.results import Classification, Place, Saliency
from MedAILib.volume import Geometry

GRID = Geometry((2, 3, 4), np.eye(4))
WHOLE = Place("image", ((0, 2), (0, 3), (0, 4)))


def made(kind: str, p: list[float], thresholds: tuple[float, ...] | None = None, **more: Any) -> Classification:
    names = tuple("abcde"[: len(p)])
    default = (0.0 if kind == "multiclass" else 0.5,) * len(p)
    row = np.array([p])
    return Classification(names, kind, row, row, thresholds or default, (WHOLE,), GRID, **more)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (made("binary", [0.7, 0.3]), "a"),
        (made("binary", [0.7, 0.3], (0.5, 0.25)), "b"),
        (made("binary", [0.5, 0.5]), "b"),
        (made("multiclass", [0.2, 0.5, 0.3]), "b"),
        (made("multiclass", [0.2, 0.5, 0.3], (0.0, 0.6, 0.0)), "not sure"),
        (made("multilabel", [0.2, 0.6, 0.9]), "b, c"),
        (made("multilabel", [0.2, 0.4, 0.1]), "none"),
        (made("multilabel", [0.2, 0.45, 0.9], unsure_below=0.6), "not sure"),
        (made("ordinal", [0.4, 0.3, 0.3]), "b"),
        (made("ordinal", [0.6, 0.2, 0.2]), "a"),
        (made("ordinal", [0.1, 0.2, 0.7]), "c"),
        (made("multiclass", [0.2, 0.5, 0.3], unsure_below=0.51), "not sure"),
        (made("multiclass", [0.2, 0.5, 0.3], strangeness=np.array([2.0]), strange_above=1.5), "not sure"),
        (made("multiclass", [0.2, 0.5, 0.3], strangeness=np.array([1.0]), strange_above=1.5), "b"),
    ],
)
def test_verdicts(result: Classification, said: str) -> None:
    assert result.verdict().text == said
    assert bool(result.verdict().unsure) == (said == "not sure")
    assert said in in_words(result)


@given(arrays(float, 4, elements=st.floats(0.01, 1)))
def test_without_thresholds_the_largest_of_many_wins(values: np.ndarray) -> None:
    p = values / values.sum()
    assert made("multiclass", p.tolist()).verdict().classes == ("abcd"[int(p.argmax())],)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("a", "a")}, "names of their own"),
        ({"kind": "vague"}, "vague"),
        ({"probabilities": np.array([[0.1, 1.2]])}, "from 0 to 1"),
        ({"probabilities": np.array([[0.1, np.nan]])}, "from 0 to 1"),
        ({"probabilities": np.array([[0.1, 0.2, 0.7]])}, "don't fit"),
        ({"thresholds": (0.5,)}, "1 thresholds"),
        ({"places": ()}, "at least one row"),
        ({"strangeness": np.array([1.0])}, "comes with its threshold"),
        ({"codes": (None,)}, "1 codes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    whole: dict[str, Any] = {
        "classes": ("a", "b"),
        "kind": "binary",
        "probabilities": np.array([[0.4, 0.6]]),
        "scores": np.array([[0.0, 1.0]]),
        "thresholds": (0.5, 0.5),
        "places": (WHOLE,),
        "geometry": GRID,
    }
    Classification(**whole)
    with pytest.raises(InputError, match=said):
        Classification(**whole | changes)


def test_a_saliency_is_float32_on_the_grid_from_minus_one_to_one() -> None:
    good = np.zeros(GRID.shape_kji, np.float32)
    Saliency(good, GRID, "a", "lime", 0.0)
    for bad in (good.astype(float), good[:1], good + 2, good * np.float32(np.nan)):
        with pytest.raises(InputError):
            Saliency(bad, GRID, "a", "lime", 0.0)


def test_several_rows_have_means_and_no_decision_on_the_whole() -> None:
    places = tuple(Place("frame", WHOLE.box_kji, n) for n in range(2))
    p = np.array([[0.2, 0.8], [0.6, 0.4]])
    said = summary(Classification(("a", "b"), "binary", p, p, (0.5, 0.5), places, GRID))
    assert said["predicted"] is None and said["threshold"] is None
    assert [entry["probability"] for entry in said["classes"]] == pytest.approx([0.4, 0.6])
    assert [row["predicted"] for row in said["rows"]] == ["b", "a"]
