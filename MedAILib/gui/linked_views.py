"""Slice views and plots that belong together: a slice that moves, a point in a plot that is clicked."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MedAILib.gui.show import jump_to, plot_views

_CLICKED = "dataSelected(vtkStringArray*,vtkCollection*)"


class LinkedViews(VTKObservationMixin):
    """Hears the slice views and the plots of the layout, from `follow` until `leave`.

    Args:
        onSliceMoved: called when a slice view shows another slice.
        placeOnPlot: where in the world (RAS, mm) a point of a plot is, of its series' node and its number; None for
            nowhere. Its slice is brought up where the user clicks it.
    """

    def __init__(
        self,
        onSliceMoved: Callable[[], object],
        placeOnPlot: "Callable[[Any, int], tuple[float, float, float] | None]",
    ):
        VTKObservationMixin.__init__(self)
        self._onSliceMoved, self._placeOnPlot = onSliceMoved, placeOnPlot
        self._plotViews: list[Any] = []

    def follow(self):
        """Hear all views that there are now; a new layout may have more."""
        for sliceNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if not self.hasObserver(sliceNode, vtk.vtkCommand.ModifiedEvent, self._onSliceNodeModified):
                self.addObserver(sliceNode, vtk.vtkCommand.ModifiedEvent, self._onSliceNodeModified)
        for view in plot_views():
            if view not in self._plotViews:
                view.connect(_CLICKED, self._onPlotPicked)
                self._plotViews.append(view)
        self._onSliceMoved()

    def leaveSlices(self):
        """Hear the slice views no more; their nodes go with the scene."""
        self.removeObservers()

    def leave(self):
        """Hear nothing any more."""
        self.leaveSlices()
        views, self._plotViews = self._plotViews, []
        for view in views:
            with suppress(ValueError):  # destroyed already: when Slicer quits, its window goes first
                view.disconnect(_CLICKED, self._onPlotPicked)

    def _onSliceNodeModified(self, caller, event):
        self._onSliceMoved()

    def _onPlotPicked(self, seriesIDs, selections):
        """Go to the slice of the point that was clicked in a plot."""
        with slicer.util.tryWithErrorDisplay(_("The slice could not be shown.")):
            for number in range(seriesIDs.GetNumberOfValues()):
                seriesNode = slicer.mrmlScene.GetNodeByID(seriesIDs.GetValue(number))
                points = selections.GetItemAsObject(number)
                if seriesNode is None or points is None or not points.GetNumberOfValues():
                    continue
                place = self._placeOnPlot(seriesNode, points.GetValue(0))
                if place is not None:
                    jump_to(place)
                    return
