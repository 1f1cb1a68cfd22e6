"""What a combo box offers, brought in line with what there is."""

from collections.abc import Sequence
from typing import Any


def offer(combo: Any, choices: "Sequence[tuple[str, Any]]") -> None:
    """Let a combo box offer these texts, each with what it stands for; nobody is told.

    Where it offers just these already, what is chosen stays.
    """
    if [(combo.itemText(row), combo.itemData(row)) for row in range(combo.count)] == list(choices):
        return
    combo.blockSignals(True)
    combo.clear()
    for text, meaning in choices:
        combo.addItem(text, meaning)
    combo.blockSignals(False)
