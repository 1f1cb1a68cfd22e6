"""The panel's section on training: labelled images that become more, and a model that goes on learning from them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.gui.current_run import CurrentRun
from MedAILib.gui.messages import Messages
from MedAILib.gui.nodes import is_there
from MedAILib.gui.packages import NEEDED_TO_TRAIN, ensure_packages, slicer_tools


class TrainingSection:
    """Adds the panel's image with its segmentation to a training set, and trains a model on it.

    Args:
        ui: the panel's widgets.
        logic: of the module, which does both.
        current: the panel's run.
        messages: where it says what has become of the image.
        onTrained: called with the name of the new model.
        inputs: the panel's parameters (None where there are none), and its images.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        current: CurrentRun,
        messages: Messages,
        onTrained: Callable[[str], object],
        inputs: Callable[[], "tuple[Any, Sequence[Any]]"],
    ) -> None:
        self._ui, self._logic, self._current, self._messages = ui, logic, current, messages
        self._onTrained, self._inputs = onTrained, inputs
        ui.trainingFolderButton.connect("clicked(bool)", self.onTrainingFolderButton)
        ui.addToTrainingSetButton.connect("clicked(bool)", self.onAddToTrainingSetButton)
        ui.fineTuneButton.connect("clicked(bool)", self.onFineTuneButton)

    def onTrainingFolderButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The folder could not be chosen.")):
            parameters, _images = self._inputs()
            parent = self._ui.trainingFolderButton
            folder = qt.QFileDialog.getExistingDirectory(parent, _("Folder of the training set"))
            if folder and parameters is not None:
                parameters.trainingFolder = str(Path(folder))

    def onAddToTrainingSetButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The image could not be added to the training set."), waitCursor=True):
            parameters, images = self._inputs()
            try:
                added = self._logic.addToTrainingSet(
                    images,
                    parameters.trainingSegmentation,
                    parameters.trainingFolder.strip(),
                    parameters.model,
                    parameters.roi if is_there(parameters.roi) else None,
                )
            except MedAIError as error:
                self._messages.show(error)
                return
            said = _("{name} has its new labels; the training set has {count} images.")
            if not added.replaced:
                said = _("{name} was added; the training set has {count} images.")
            self._messages.tell(said.format(name=added.name, count=added.cases))
            self.update(self._current.busy)

    def onFineTuneButton(self) -> None:
        if self._current.busy:
            return
        with slicer.util.tryWithErrorDisplay(_("The training could not be started."), waitCursor=True):
            parameters, _images = self._inputs()
            folder, name, model = parameters.trainingFolder, parameters.trainedName.strip(), parameters.model
            options = {"epochs": parameters.trainingEpochs, "device": parameters.device, "resume": "auto"}
            try:
                if ensure_packages(slicer_tools(), NEEDED_TO_TRAIN):
                    self._messages.log(_("Packages were installed."))
                self._current.follow(
                    lambda **told: self._logic.fineTuneAsync(folder, name, model, **options, **told), self._onTrained
                )
            except MedAIError as error:
                self._messages.show(error)
                return
            said = _("Training {name} from {model} on {folder}")
            self._messages.log(said.format(name=name, model=model, folder=folder))

    def update(self, running: bool) -> None:
        """Enable what can be done, and say of the rest why not; `running` is whether a run is under way."""
        parameters, images = self._inputs()
        missing = self._missing(parameters, images, running)
        add, tune = self._ui.addToTrainingSetButton, self._ui.fineTuneButton
        add.enabled = not missing
        add.toolTip = missing or _("Write the image and its segmentation into the training set.")
        missing = self._missingToTrain(parameters, running)
        tune.enabled = not missing
        tune.toolTip = missing or _(
            "Train a new model on the training set, from the weights of the chosen one, in a process of its own. One "
            "that was cancelled goes on, if images and settings are the same."
        )

    def _missing(self, parameters: Any, images: "Sequence[Any]", running: bool) -> str:
        if running:
            return _("A run is under way; cancel it or wait.")
        if parameters is None or not all(is_there(image) for image in images):
            return _("Choose an image first.")
        if not is_there(parameters.trainingSegmentation):
            return _("Choose the segmentation that belongs to the image.")
        return "" if parameters.trainingFolder.strip() else _("Choose a folder for the training set.")

    def _missingToTrain(self, parameters: Any, running: bool) -> str:
        if running:
            return _("A run is under way; cancel it or wait.")
        if parameters is None or not (Path(parameters.trainingFolder.strip() or "-") / "dataset.json").is_file():
            return _("Add images to a training set first.")
        return "" if parameters.trainedName.strip() else _("Give the new model a name.")
