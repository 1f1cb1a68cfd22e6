"""The panel's section on training: labelled images that become more, and a model that goes on learning from them."""

from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _


class TrainingSection:
    """Says what is missing before an image can be added or a model trained.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui

    def askForFolder(self, parent: Any) -> str:
        """Let the user choose where the training set is, or is to be; its path, empty where none was chosen."""
        folder = qt.QFileDialog.getExistingDirectory(parent, _("Folder of the training set"))
        return str(Path(folder)) if folder else ""

    def update(self, parameters: Any, imagesThere: bool, running: bool) -> None:
        """Enable what can be done, and say of the rest why not.

        Args:
            parameters: the panel's; None where there are none.
            imagesThere: whether an image is chosen for each channel.
            running: whether a run is under way.
        """
        missing = self._missing(parameters, imagesThere, running)
        add, tune = self._ui.addToTrainingSetButton, self._ui.fineTuneButton
        add.enabled = not missing
        add.toolTip = missing or _("Write the image and its segmentation into the training set.")
        missing = self._missingToTrain(parameters, running)
        tune.enabled = not missing
        tune.toolTip = missing or _(
            "Train a new model on the training set, from the weights of the chosen one, in a process of its own."
        )

    def _missing(self, parameters: Any, imagesThere: bool, running: bool) -> str:
        if running:
            return _("A run is under way; cancel it or wait.")
        if parameters is None or not imagesThere:
            return _("Choose an image first.")
        if parameters.trainingSegmentation is None or parameters.trainingSegmentation.GetScene() is None:
            return _("Choose the segmentation that belongs to the image.")
        return "" if parameters.trainingFolder.strip() else _("Choose a folder for the training set.")

    def _missingToTrain(self, parameters: Any, running: bool) -> str:
        if running:
            return _("A run is under way; cancel it or wait.")
        if parameters is None or not (Path(parameters.trainingFolder.strip() or "-") / "dataset.json").is_file():
            return _("Add images to a training set first.")
        return "" if parameters.trainedName.strip() else _("Give the new model a name.")
