"""The decision of a kind, by its name."""

from collections.abc import Sequence

from MedAILib.training.decide_class import OneClass
from MedAILib.training.decide_grades import OrderedGrades
from MedAILib.training.decide_labels import SeveralLabels
from MedAILib.training.decision import Decision

KINDS: dict[str, type[Decision]] = {
    "binary": OneClass,
    "multiclass": OneClass,
    "multilabel": SeveralLabels,
    "ordinal": OrderedGrades,
}


def decision_of(kind: str, names: Sequence[str]) -> Decision:
    """How classes are decided between by one of `KINDS`."""
    return KINDS[kind](kind, names)
