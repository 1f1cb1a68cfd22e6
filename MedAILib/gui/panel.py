"""What the panels of all of MedAI's modules share: models, images, device, worker, one run at a time, its log.

A module's widget says what is its own: `class MedAISegmentWidget(ModelPanel)`. Its `.ui` file has the widgets named
here, by these names, beside its own.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import SlicerParameterNamePropertyName
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from MedAILib.errors import MedAIError
from MedAILib.gui.ask import ask, nobody_waits
from MedAILib.gui.devices import device_choices, nvidia_cards
from MedAILib.gui.follow import FollowedRun
from MedAILib.gui.logic import ModelLogic
from MedAILib.gui.models import ModelEntry, ModelPicker, licence_question
from MedAILib.gui.packages import ensure_packages, slicer_tools, slow_torch
from MedAILib.gui.trust import allow, trust_code, untrusted_scripts
from MedAILib.gui.words import progress_text, size_text, time_text, worker_text
from MedAILib.spec import ModelSpec
from MedAILib.worker.client import JobState, WorkerDefect

# How many input channels the panel has a selector for; the Python console has no such limit.
MAX_CHANNELS = 8
# States of models (`ModelEntry.state`) of which there is something on record.
KEPT = ("built in", "installed")
# The parameters and selectors of the images, in the order of a model's channels.
CHANNELS = ("inputVolume", *(f"inputVolume{number}" for number in range(2, MAX_CHANNELS + 1)))


class ModelPanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Shows the parameters, starts and follows a run, and says how it stands.

    A module's own widget gives the name of its `.ui` file, makes its logic, and overrides `connectOwn`, `arguments`,
    `begin`, `showResults`, and where it has more to say `ownHindrance`, `imagesNeeded`, `updateOwn`, `inputNames`,
    `inputsDependOn`,
    `showInputs`.
    """

    UI = ""

    def __init__(self, parent=None):
        self.logic: Any = None  # first, since the base class may call setup
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None
        self._run: FollowedRun | None = None
        self._lastArguments: dict[str, Any] | None = None
        self._inputsShown: Any = None
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    # What a module says of itself

    def makeLogic(self) -> ModelLogic:
        """The module's logic."""
        raise NotImplementedError

    def connectOwn(self):
        """Connect the module's own widgets."""

    def arguments(self) -> "dict[str, Any]":
        """What the panel says, as arguments of the logic; nodes by their ID."""
        raise NotImplementedError

    def begin(self, arguments: "dict[str, Any]", **listeners) -> FollowedRun | None:
        """Begin the run of these arguments."""
        raise NotImplementedError

    def showResults(self, nodes):
        """Bring what a run made before the user's eyes."""
        raise NotImplementedError

    def ownHindrance(self) -> str:
        """What else is missing before a run can begin; empty when nothing is."""
        return ""

    def imagesNeeded(self) -> bool:
        """Whether a run takes the images of the selectors, one for each channel."""
        return True

    def updateOwn(self, running: bool):
        """Bring the module's own widgets in line with the parameters and the run."""

    def inputNames(self, spec: ModelSpec) -> "Sequence[str]":
        """What the selectors of images are called, one for each image that a model takes."""
        return spec.channels

    def inputsDependOn(self) -> Any:
        """What else decides which inputs are shown, beside the model's channels."""
        return None

    def showInputs(self):
        """Show or hide the module's own inputs; called when the channels or what they depend on have changed."""

    # Setting up and leaving

    def setup(self):
        super().setup()
        uiWidget = slicer.util.loadUI(self.resourcePath(self.UI))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = self.makeLogic()
        self._uiWidget = uiWidget
        self._picker = ModelPicker(self.ui.modelSearchBox, self.ui.modelList, self.ui.modelDetails, self._onModelPicked)
        self._picker.fill(self.logic.models())
        self._fillDevices()
        self.ui.workerCommandLineEdit.text = self.logic.workerCommand()
        self._sayDestination()

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)

        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancelButton)
        self.ui.runAgainButton.connect("clicked(bool)", self.onRunAgainButton)
        self.ui.getModelButton.connect("clicked(bool)", self.onGetModelButton)
        self.ui.addModelButton.connect("clicked(bool)", self.onAddModelButton)
        self.ui.verifyModelButton.connect("clicked(bool)", self.onVerifyModelButton)
        self.ui.removeModelButton.connect("clicked(bool)", self.onRemoveModelButton)
        self.ui.modelFolderButton.connect("clicked(bool)", self.onModelFolderButton)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDevicePicked)
        self.ui.freeMemoryButton.connect("clicked(bool)", self.onFreeMemoryButton)
        self.ui.restartWorkerButton.connect("clicked(bool)", self.onRestartWorkerButton)
        self.ui.workerCommandLineEdit.connect("editingFinished()", self.onWorkerCommandEdited)
        self.ui.copyDiagnosticsButton.connect("clicked(bool)", self.onCopyDiagnosticsButton)
        self.connectOwn()
        self.initializeParameterNode()

    def cleanup(self):
        """Leave the worker when the panel goes: Slicer closes, or the module is reloaded."""
        self.removeObservers()
        if self._run is not None:
            self._run.cancel()
        if self.logic is not None:
            self.logic.close()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onReload(self):
        """Reload the library with the module file; Slicer by itself reloads the file alone."""
        self.setParameterNode(None)
        self.cleanup()
        for name in [name for name in sys.modules if name.split(".")[0] == "MedAILib"]:
            del sys.modules[name]
        super().onReload()

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Show the parameters of the scene, with its first image chosen where none is."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            firstVolumeNode = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if firstVolumeNode:
                self._parameterNode.inputVolume = firstVolumeNode

    def setParameterNode(self, parameterNode):
        """Show and change the parameters of this node, or of none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._parameterNode = parameterNode
        if self._parameterNode:
            # Not connectGui, which keeps its tag to itself: such a connection could never be ended.
            self._parameterNodeGuiTag = self._parameterNode.connectParametersToGui(bound_widgets(self.ui))
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    # What the user does

    def onApplyButton(self):
        self._start(self.arguments)

    def onRunAgainButton(self):
        self._start(lambda: self._lastArguments or {})

    def onCancelButton(self):
        if self._run is not None:
            self._run.cancel()
            self._say(_("Cancelling"))

    def onModelFolderButton(self):
        with slicer.util.tryWithErrorDisplay(_("The folder could not be opened as a model.")):
            self._picker.askForFolder(self._uiWidget)

    def onGetModelButton(self):
        with slicer.util.tryWithErrorDisplay(_("The model could not be fetched.")):
            model = self._picker.current()
            if model is None or model.offer is None:
                return
            if ask(licence_question(model.offer), _("Get the model"), _("Don't get it"), _("MedAI: a model's licence")):
                self._get(model.name)

    def onAddModelButton(self):
        with slicer.util.tryWithErrorDisplay(_("The model could not be added.")):
            path = self._picker.askForArchive(self._uiWidget)
            if path:
                self._get(path)

    def onVerifyModelButton(self):
        with slicer.util.tryWithErrorDisplay(_("The model could not be verified.")):
            model = self._picker.current()
            if model is None or self._busy():
                return
            self._run = self.logic.verifyModelAsync(
                model.name, onDone=self._onModelVerified, onError=self._onError, onProgress=self._onProgress
            )
            self._update()

    def onRemoveModelButton(self):
        with slicer.util.tryWithErrorDisplay(_("The model could not be removed.")):
            model = self._picker.current()
            if model is None:
                return
            question = _("{model} is removed from this computer; {size} become free.")
            text = question.format(model=model.title, size=size_text(model.size_bytes))
            if ask(text, _("Remove the model"), _("Keep it"), _("MedAI: remove a model")):
                self._remove(model.name)

    def onFreeMemoryButton(self):
        self.logic.freeMemory()
        self._log(_("The worker was asked to forget its models."))

    def onRestartWorkerButton(self):
        self.logic.restartWorker()
        self._log(_("The worker was ended; the next run starts a new one."))

    def onWorkerCommandEdited(self):
        with slicer.util.tryWithErrorDisplay(_("The worker command could not be taken.")):
            try:
                self.logic.setWorkerCommand(self.ui.workerCommandLineEdit.text.strip())
            except MedAIError as error:
                self._show(error)
            self._sayDestination()

    def onCopyDiagnosticsButton(self):
        text = self.logic.diagnostics(self._modelName(), self.ui.logText.toPlainText())
        qt.QApplication.clipboard().setText(text)
        self._say(_("The diagnostics are on the clipboard."))

    def _onModelPicked(self, model: ModelEntry):
        if self._parameterNode:
            self._parameterNode.model = model.name

    def _onDevicePicked(self, index):
        if self._parameterNode and index >= 0:
            self._parameterNode.device = self.ui.deviceComboBox.itemData(index)

    def _get(self, source):
        """Bring a model into the store; the panel follows it as it follows a run."""
        if self._busy():
            return
        self._log(_("Getting {source}").format(source=source))
        self._run = self.logic.getModelAsync(
            source, onDone=self._onModelHere, onError=self._onError, onProgress=self._onProgress
        )
        self._update()

    def _remove(self, name):
        try:
            self.logic.removeModel(name)
        except MedAIError as error:
            self._show(error)
            return
        self._picker.fill(self.logic.models())
        if self._parameterNode and self._parameterNode.model == name:
            self._parameterNode.model = ""
        text = _("The model {name} was removed.").format(name=name)
        self._say(text)
        self._log(text)
        self._update()

    def _onModelVerified(self, found):
        text = _("The model {name} is as it came (SHA-256 {digest}).")
        if not found.recorded:
            text = _("The model {name} has nothing on record to compare with (SHA-256 {digest}).")
        text = text.format(name=found.name, digest=found.sha256)
        self._say(text)
        self._log(text)
        self._update()

    def _onModelHere(self, name):
        self._picker.fill(self.logic.models())
        if self._parameterNode:
            self._parameterNode.model = name
        self._say(_("The model {name} is ready.").format(name=name))
        self._log(_("The model {name} is ready.").format(name=name))
        self._update()

    # A run

    def _busy(self) -> bool:
        return self._run is not None and not self._run.finished

    def _start(self, makeArguments: "Callable[[], dict[str, Any]]"):
        """Begin a run; what the user can mend is said in one sentence, all else is a defect and shown as such."""
        if self._busy():
            return
        with slicer.util.tryWithErrorDisplay(_("The run could not be started."), waitCursor=True):
            try:
                if not self.logic.workerCommand() and ensure_packages(slicer_tools()):
                    self._log(_("Packages were installed."))
                arguments = makeArguments()
                run = (
                    None
                    if not self._trusted(arguments)
                    else self.begin(
                        arguments,
                        onDone=self._onDone,
                        onError=self._onError,
                        onProgress=self._onProgress,
                        onWarnings=self._onWarnings,
                    )
                )
            except MedAIError as error:
                self._show(error)
                return
            if run is None:
                self._say(_("Not run."))
                self._log(_("Not run, as was chosen."))
                return
            self._run, self._lastArguments = run, arguments
            advice = slow_torch(slicer_tools())
            if advice:
                self._log(advice)
            about = "" if run.expected_s is None else _(", about {time}").format(time=time_text(run.expected_s))
            image = self._imageNames(arguments)
            self._log(_("{model} on {image}").format(model=arguments["model"], image=image) + about)
        self._update()

    def _trusted(self, arguments: "dict[str, Any]") -> bool:
        """Whether the model may run: one that executes code of its own only with the user's word, asked for once."""
        for script in untrusted_scripts(arguments["model"]):
            with nobody_waits():
                allowed = ask(script.question(), _("Allow it"), _("Don't run"), _("MedAI: a model's own code"))
            if not allowed:
                return False
            allow(script)
            self._log(_("You allow {model} to execute its code.").format(model=script.source))
        code = trust_code(arguments["model"])
        if code:
            arguments["trustCode"] = code
        return True

    def _onWarnings(self, texts: "Sequence[str]") -> bool:
        """Ask whether to run all the same, in one box."""
        for text in texts:
            self._log(text)
        with nobody_waits():
            return ask("\n\n".join(texts), _("Run all the same"), _("Don't run"), _("MedAI: before the run"))

    def _onProgress(self, state: JobState):
        ui = self.ui
        running = not state.finished
        ui.progressBar.visible = running
        ui.progressBar.maximum = state.total if state.total > 1 else 0
        ui.progressBar.value = state.done
        self._say(progress_text(state))
        if not running:
            for warning in state.warnings:
                self._log(warning)
            self._update()

    def _onDone(self, nodes):
        with slicer.util.tryWithErrorDisplay(_("The result is in the scene but could not be shown.")):
            self.showResults(nodes)
        self._fillDevices()
        self._update()

    def _onError(self, error: Exception):
        self._update()
        if self._run is not None and self._run.dropped:
            self._say(str(error))
            self._log(str(error))
        else:
            self._show(error)

    def _show(self, error: Exception):
        """Say what went wrong in the panel and in a message box, which does not keep the timer waiting."""
        text = str(error)
        if isinstance(error, WorkerDefect):
            summary = _("The run failed by a defect of MedAI or of a library. The log has the details.")
        else:
            summary = text.partition("\nIts last words:")[0]
        self._say(summary)
        self._log(text)
        details = {"detailedText": text} if summary != text else {}
        qt.QTimer.singleShot(0, lambda: slicer.util.errorDisplay(summary, **details))

    # What the panel shows

    def _update(self, caller=None, event=None):
        """Bring everything that is not bound to a parameter in line with the parameters and the run."""
        parameters = self._parameterNode
        if parameters is not None:
            if self._modelName() != parameters.model:
                self._picker.choose(parameters.model)
            self._chooseDevice(parameters.device)
            self._nameChannels()
        running = self._busy()
        hindrance = _("A run is under way; cancel it or wait.") if running else self._hindrance()
        self.ui.applyButton.enabled = not hindrance
        self.ui.applyButton.toolTip = hindrance or _("Run the model on the image.")
        self.ui.cancelButton.enabled = running
        model = self._picker.current()
        can = model is not None and model.offer is not None and not model.fault
        self.ui.getModelButton.enabled = can and not running
        self.ui.addModelButton.enabled = not running
        self.ui.verifyModelButton.enabled = not running and model is not None and model.state in KEPT
        self.ui.removeModelButton.enabled = not running and model is not None and model.state == "installed"
        self.ui.runAgainButton.enabled = self._lastArguments is not None and not running
        self.updateOwn(running)

    def _hindrance(self) -> str:
        """What is missing before a run can begin; empty when nothing is."""
        model = self._picker.current()
        if self._parameterNode is None or model is None:
            return _("Choose a model.")
        if model.offer is not None:
            wanted = _("Get this model first; it is not on this computer yet.")
            return _("This model does not run: {fault}").format(fault=model.fault) if model.fault else wanted
        if model.spec is None:
            return _("This model can't be read: {fault}").format(fault=model.fault)
        names = self.inputNames(model.spec)
        if len(names) > MAX_CHANNELS:
            return _("This model wants more images than the panel can take; call it from the Python console.")
        missing = [name for name, node in zip(names, self._inputNodes(), strict=True) if not is_there(node)]
        if missing and self.imagesNeeded():
            return _("Choose an image for: {channels}").format(channels=", ".join(missing))
        return self.ownHindrance()

    def _inputNodes(self) -> "list[Any]":
        model = self._picker.current()
        count = len(self.inputNames(model.spec)) if model is not None and model.spec is not None else 1
        return [self._parameterNode.getValue(name) for name in CHANNELS[:count]]

    def _nameChannels(self):
        """One selector for each channel of the model, by the model's own name for it."""
        model = self._picker.current()
        spec = model.spec if model is not None else None
        channels = tuple(self.inputNames(spec)) if spec is not None else (_("Image"),)
        shown = (channels, self.inputsDependOn())
        if shown == self._inputsShown:
            return  # a section that the user folded stays so
        self._inputsShown = shown
        for number, name in enumerate(CHANNELS):
            label, selector = getattr(self.ui, f"{name}Label"), getattr(self.ui, f"{name}Selector")
            label.visible = selector.visible = number < len(channels)
            if number < len(channels):
                label.text = f"{channels[number]}:"
        self.showInputs()

    def _fillDevices(self):
        status = self.logic.workerStatus()
        self.ui.workerStateLabel.text = worker_text(status)
        self.ui.deviceComboBox.blockSignals(True)
        self.ui.deviceComboBox.clear()
        for name, text in device_choices(nvidia_cards(), status.devices):
            self.ui.deviceComboBox.addItem(text, name)
        self.ui.deviceComboBox.blockSignals(False)
        if self._parameterNode is not None:
            self._chooseDevice(self._parameterNode.device)

    def _sayDestination(self):
        """Whoever sends images to another computer sees it before each run."""
        destination = self.logic.destination()
        text = _("For research use only. Not a medical device.")
        if destination:
            text = _("{notice} Images are sent to {destination}.").format(notice=text, destination=destination)
        self.ui.researchUseLabel.text = text

    def _chooseDevice(self, name):
        combo = self.ui.deviceComboBox
        index = combo.findData(name)
        if index < 0:  # a scene from a computer with other cards
            combo.addItem(name, name)
            index = combo.count - 1
        if combo.currentIndex != index:
            combo.currentIndex = index

    def _modelName(self) -> str:
        model = self._picker.current()
        return model.name if model is not None else ""

    def _imageNames(self, arguments) -> str:
        ids = [arguments["sequenceNode"]] if "sequenceNode" in arguments else arguments["volumeNode"]
        nodes = [slicer.mrmlScene.GetNodeByID(nodeID) for nodeID in ids]
        return " + ".join(node.GetName() for node in nodes if node is not None)

    def _say(self, text):
        self.ui.statusLabel.text = text

    def _log(self, text):
        self.ui.logText.appendPlainText(f"{time.strftime('%H:%M:%S')}  {text}")
        logging.info(text)


def bound_widgets(ui) -> "dict[str, Any]":
    """The widgets that the `.ui` file binds to parameters, by the parameters' names."""
    named = {widget.property(SlicerParameterNamePropertyName): widget for widget in vars(ui).values()}
    return {name: widget for name, widget in named.items() if name}


def is_there(node) -> bool:
    """Whether a parameter's node is there: a parameter may still know a node that has left the scene."""
    return node is not None and node.GetScene() is not None
