"""A list whose rows stand for places in the world, such as findings or slices."""

from collections.abc import Sequence
from typing import Any, Protocol

from MedAILib.gui.show import jump_to


class Spot(Protocol):
    """A row: its text, and its place (RAS, mm), None where it has none any more."""

    @property
    def text(self) -> str: ...
    @property
    def place_ras(self) -> "tuple[float, float, float] | None": ...


class PlaceList:
    """Shows spots; the slice views go to the place of the one that the user chooses.

    Args:
        rows: a QListWidget.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._spots: Sequence[Spot] = []
        rows.connect("currentRowChanged(int)", self._onRowChosen)

    def show(self, spots: Sequence[Spot]) -> None:
        """Show these; where they are shown already, the chosen row stays chosen."""
        if spots == self._spots:
            return
        self._spots = spots
        self._rows.blockSignals(True)
        self._rows.clear()
        for spot in spots:
            self._rows.addItem(spot.text)
        self._rows.blockSignals(False)

    def _onRowChosen(self, row: int) -> None:
        place = self._spots[row].place_ras if 0 <= row < len(self._spots) else None
        if place is not None:
            jump_to(place)
