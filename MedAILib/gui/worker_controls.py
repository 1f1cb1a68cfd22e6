"""Where runs are computed: the device, the worker's memory, the user's own command for another computer."""

from collections.abc import Callable
from typing import Any

import slicer.util
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.gui.combo import offer
from MedAILib.gui.devices import device_choices, nvidia_cards
from MedAILib.gui.logic import ModelLogic
from MedAILib.gui.messages import Messages
from MedAILib.gui.shared_worker import keep_starts_ahead, starts_ahead
from MedAILib.gui.words import worker_text


class WorkerControls:
    """Shows and changes what the worker is and has.

    Args:
        ui: has `deviceComboBox`, `workerStateLabel`, `workerCommandLineEdit`, `startAheadCheckBox`, `researchUseLabel`
            and the buttons.
        logic: knows the worker.
        messages: where it says what was done.
        onDevicePicked: called with the device that the user picks.
    """

    def __init__(self, ui: Any, logic: ModelLogic, messages: Messages, onDevicePicked: Callable[[str], object]) -> None:
        self._ui, self._logic, self._messages, self._onDevicePicked = ui, logic, messages, onDevicePicked
        self.showStatus()
        ui.workerCommandLineEdit.text = logic.workerCommand()
        ui.startAheadCheckBox.checked = starts_ahead()
        self._sayDestination()
        ui.startAheadCheckBox.connect("toggled(bool)", keep_starts_ahead)
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDeviceIndexChanged)
        ui.freeMemoryButton.connect("clicked(bool)", self.onFreeMemoryButton)
        ui.restartWorkerButton.connect("clicked(bool)", self.onRestartWorkerButton)
        ui.workerCommandLineEdit.connect("editingFinished()", self.onWorkerCommandEdited)

    def showStatus(self) -> None:
        """Show what the worker last said of itself, and the devices to choose from."""
        status = self._logic.workerStatus()
        self._ui.workerStateLabel.text = worker_text(status)
        choices = device_choices(nvidia_cards(), status.devices)
        offer(self._ui.deviceComboBox, [(text, name) for name, text in choices])

    def startAhead(self, model: str, device: str) -> None:
        """Let the worker start and open a model in the background, where the user allows that."""
        if model and starts_ahead():
            self._logic.warmWorker(model, device)

    def chooseDevice(self, name: str) -> None:
        """Show this device as the chosen one."""
        combo = self._ui.deviceComboBox
        index = combo.findData(name)
        if index < 0:  # a scene from a computer with other cards
            combo.addItem(name, name)
            index = combo.count - 1
        if combo.currentIndex != index:
            combo.currentIndex = index

    def onFreeMemoryButton(self) -> None:
        self._logic.freeMemory()
        self._messages.log(_("The worker was asked to forget its models."))

    def onRestartWorkerButton(self) -> None:
        self._logic.restartWorker()
        self._messages.log(_("The worker was ended; the next run starts a new one."))

    def onWorkerCommandEdited(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The worker command could not be taken.")):
            try:
                self._logic.setWorkerCommand(self._ui.workerCommandLineEdit.text.strip())
            except MedAIError as error:
                self._messages.show(error)
            self._sayDestination()

    def _onDeviceIndexChanged(self, index: int) -> None:
        if index >= 0:
            self._onDevicePicked(self._ui.deviceComboBox.itemData(index))

    def _sayDestination(self) -> None:
        """Whoever sends images to another computer sees it before each run."""
        destination = self._logic.destination()
        text = _("For research use only. Not a medical device.")
        if destination:
            text = _("{notice} Images are sent to {destination}.").format(notice=text, destination=destination)
        self._ui.researchUseLabel.text = text
