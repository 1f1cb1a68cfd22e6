"""Which measures a kind of decision has."""

from MedAILib.training.classification_measures import CLASSES, Measures
from MedAILib.training.grade_measures import GRADES
from MedAILib.training.label_measures import LABELS


def measures_of(kind: str) -> Measures:
    """The measures of a kind of decision, such as "multilabel"."""
    return {"multilabel": LABELS, "ordinal": GRADES}.get(kind, CLASSES)
