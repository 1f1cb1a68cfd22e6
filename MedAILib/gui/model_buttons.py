"""The buttons beside the list of models: get, add, verify, remove, open a folder."""

from collections.abc import Callable
from typing import Any

import slicer.util
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.gui.ask import ask
from MedAILib.gui.current_run import CurrentRun
from MedAILib.gui.logic import ModelLogic
from MedAILib.gui.messages import Messages
from MedAILib.gui.model_description import licence_question
from MedAILib.gui.model_picker import ModelPicker
from MedAILib.gui.words import size_text
from MedAILib.store.adding import Verified

# States of models (`ModelEntry.state`) of which there is something on record.
KEPT = ("built in", "installed")


class ModelButtons:
    """Does to the chosen model what the user asks for, and follows what takes long as a run.

    Args:
        ui: has the buttons.
        picker: the list of models.
        logic: knows and changes the models.
        current: the panel's run.
        messages: where it says what has become of a model.
        onChosen: called with the name of the model to be chosen from now on; empty for none.
    """

    def __init__(
        self,
        ui: Any,
        picker: ModelPicker,
        logic: ModelLogic,
        current: CurrentRun,
        messages: Messages,
        onChosen: Callable[[str], object],
    ) -> None:
        self._ui, self._picker, self._logic = ui, picker, logic
        self._current, self._messages, self._onChosen = current, messages, onChosen
        ui.getModelButton.connect("clicked(bool)", self.onGetModelButton)
        ui.addModelButton.connect("clicked(bool)", self.onAddModelButton)
        ui.verifyModelButton.connect("clicked(bool)", self.onVerifyModelButton)
        ui.removeModelButton.connect("clicked(bool)", self.onRemoveModelButton)
        ui.modelFolderButton.connect("clicked(bool)", self.onModelFolderButton)

    def update(self, running: bool) -> None:
        """Bring the buttons in line with the chosen model and the panel's run."""
        model = self._picker.current()
        can = model is not None and model.offer is not None and not model.fault
        self._ui.getModelButton.enabled = can and not running
        self._ui.addModelButton.enabled = not running
        self._ui.verifyModelButton.enabled = not running and model is not None and model.state in KEPT
        self._ui.removeModelButton.enabled = not running and model is not None and model.state == "installed"

    def onModelFolderButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The folder could not be opened as a model.")):
            self._picker.askForFolder()

    def onGetModelButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model could not be fetched.")):
            model = self._picker.current()
            if model is None or model.offer is None:
                return
            if ask(licence_question(model.offer), _("Get the model"), _("Don't get it"), _("MedAI: a model's licence")):
                self.get(model.name)

    def onAddModelButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model could not be added.")):
            path = self._picker.askForArchive()
            if path:
                self.get(path)

    def onVerifyModelButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model could not be verified.")):
            model = self._picker.current()
            if model is not None and not self._current.busy:
                name = model.name
                self._current.follow(lambda **told: self._logic.verifyModelAsync(name, **told), self._onVerified)

    def onRemoveModelButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model could not be removed.")):
            model = self._picker.current()
            if model is None:
                return
            question = _("{model} is removed from this computer; {size} become free.")
            text = question.format(model=model.title, size=size_text(model.size_bytes))
            if ask(text, _("Remove the model"), _("Keep it"), _("MedAI: remove a model")):
                self._remove(model.name)

    def get(self, source: str) -> None:
        """Bring a model into the store, from the catalogue, an address or a path."""
        if not self._current.busy:
            self._messages.log(_("Getting {source}").format(source=source))
            self._current.follow(lambda **told: self._logic.getModelAsync(source, **told), self.here)

    def here(self, name: str) -> None:
        """Choose a model that has come to this computer, by a download or a training."""
        self._picker.fill(self._logic.models())
        self._onChosen(name)
        self._messages.tell(_("The model {name} is ready.").format(name=name))

    def _onVerified(self, found: Verified) -> None:
        text = _("The model {name} is as it came (SHA-256 {digest}).")
        if not found.recorded:
            text = _("The model {name} has nothing on record to compare with (SHA-256 {digest}).")
        self._messages.tell(text.format(name=found.name, digest=found.sha256))

    def _remove(self, name: str) -> None:
        try:
            self._logic.removeModel(name)
        except MedAIError as error:
            self._messages.show(error)
            return
        self._picker.fill(self._logic.models())
        self._onChosen("")
        self._messages.tell(_("The model {name} was removed.").format(name=name))
