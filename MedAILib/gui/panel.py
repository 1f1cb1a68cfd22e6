"""What the panels of all of MedAI's modules share: the parameters, the inputs of the model, and its runs.

A module's widget says what is its own: `class MedAISegmentWidget(ModelPanel)`. Its `.ui` file has the widgets named
here and in the parts that a panel is put together from, by these names, beside its own.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import SlicerParameterNamePropertyName
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from MedAILib.errors import MedAIError
from MedAILib.gui.consent import is_allowed, runs_all_the_same
from MedAILib.gui.current_run import CurrentRun
from MedAILib.gui.follow import FollowedRun
from MedAILib.gui.image_selectors import CHANNELS, MAX_CHANNELS, name_selectors
from MedAILib.gui.logic import ModelLogic
from MedAILib.gui.messages import Messages
from MedAILib.gui.model_buttons import ModelButtons
from MedAILib.gui.model_picker import ModelPicker
from MedAILib.gui.nodes import is_there
from MedAILib.gui.packages import NEEDED, ensure_packages, slicer_tools, slow_torch
from MedAILib.gui.trust import trust_code
from MedAILib.gui.words import time_text
from MedAILib.gui.worker_controls import WorkerControls
from MedAILib.spec import ModelSpec


class ModelPanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Shows the parameters, starts a run of them, and brings all parts in line with both.

    A module's own widget gives the name of its `.ui` file, makes its logic, and overrides `connectOwn`, `arguments`,
    `begin`, `showResults`, and where it has more to say `ownHindrance`, `imagesNeeded`, `updateOwn`, `inputNames`,
    `inputsDependOn`, `showInputs`. `PACKAGES` are those that its models need.
    """

    UI = ""
    PACKAGES: "Sequence[tuple[str, str, float]]" = NEEDED

    def __init__(self, parent=None):
        self.logic: Any = None  # first, since the base class may call setup
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None
        self._current: Any = None
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
        self._uiWidget = slicer.util.loadUI(self.resourcePath(self.UI))
        self.layout.addWidget(self._uiWidget)
        self.ui = ui = slicer.util.childWidgetVariables(self._uiWidget)
        self._uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = self.makeLogic()
        self._messages = Messages(ui, lambda log: self.logic.diagnostics(self._modelName(), log))
        self._current = CurrentRun(ui, self._messages, self._update)
        self._picker = ModelPicker(ui.modelSearchBox, ui.modelList, ui.modelDetails, self._onModelPicked)
        self._picker.fill(self.logic.models())
        self._models = ModelButtons(ui, self._picker, self.logic, self._current, self._messages, self._chooseModel)
        self._worker = WorkerControls(ui, self.logic, self._messages, self._onDevicePicked)

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)

        ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        ui.runAgainButton.connect("clicked(bool)", self.onRunAgainButton)
        self.connectOwn()
        self.initializeParameterNode()

    def cleanup(self):
        """Leave the worker when the panel goes: Slicer closes, or the module is reloaded."""
        self.removeObservers()
        if self._current is not None:
            self._current.cancel()
        if self.logic is not None:
            self.logic.close()

    def enter(self):
        self.initializeParameterNode()
        with slicer.util.tryWithErrorDisplay(_("The worker could not be started.")):
            self._worker.startAhead(self._modelAtHand(), self._parameterNode.device)

    def exit(self):
        self.setParameterNode(None)

    def onReload(self):
        """Reload the library with the module file; Slicer by itself reloads the file alone."""
        self.setParameterNode(None)
        self.cleanup()
        for name in [name for name in sys.modules if name.split(".")[0] == "MedAILib"]:
            del sys.modules[name]
        super().onReload()

    # The parameters

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

    def _onModelPicked(self, model):
        self._chooseModel(model.name)

    def _chooseModel(self, name):
        if self._parameterNode:
            self._parameterNode.model = name

    def _onDevicePicked(self, name):
        if self._parameterNode:
            self._parameterNode.device = name

    # A run

    def onApplyButton(self):
        self._start(self.arguments)

    def onRunAgainButton(self):
        self._start(lambda: self._lastArguments or {})

    @property
    def _run(self) -> FollowedRun | None:
        """The run that is followed, or was last."""
        return self._current.run if self._current is not None else None

    def _start(self, makeArguments: "Callable[[], dict[str, Any]]"):
        """Begin a run; what the user can mend is said in one sentence, all else is a defect and shown as such."""
        if self._current.busy:
            return
        with slicer.util.tryWithErrorDisplay(_("The run could not be started."), waitCursor=True):
            try:
                if not self.logic.workerCommand() and ensure_packages(slicer_tools(), self.PACKAGES):
                    self._messages.log(_("Packages were installed."))
                arguments = makeArguments()
                run = self._beginAllowed(arguments)
            except MedAIError as error:
                self._messages.show(error)
                return
            if run is None:
                self._messages.say(_("Not run."))
                self._messages.log(_("Not run, as was chosen."))
                return
            self._lastArguments = arguments
            self._logStart(run, arguments)
        self._update()

    def _beginAllowed(self, arguments) -> FollowedRun | None:
        """Begin the run of these arguments, where the user lets the model run; else None."""
        if not is_allowed(arguments["model"], self._messages):
            return None
        code = trust_code(arguments["model"])
        if code:
            arguments["trustCode"] = code
        return self._current.follow(
            lambda **listeners: self.begin(arguments, onWarnings=self._onWarnings, **listeners), self._onDone
        )

    def _logStart(self, run, arguments):
        advice = slow_torch(slicer_tools())
        if advice:
            self._messages.log(advice)
        about = "" if run.expected_s is None else _(", about {time}").format(time=time_text(run.expected_s))
        ids = [arguments["sequenceNode"]] if "sequenceNode" in arguments else arguments["volumeNode"]
        nodes = [slicer.mrmlScene.GetNodeByID(nodeID) for nodeID in ids]
        image = " + ".join(node.GetName() for node in nodes if node is not None)
        self._messages.log(_("{model} on {image}").format(model=arguments["model"], image=image) + about)

    def _onWarnings(self, texts: "Sequence[str]") -> bool:
        return runs_all_the_same(texts, self._messages)

    def _onDone(self, nodes):
        with slicer.util.tryWithErrorDisplay(_("The result is in the scene but could not be shown.")):
            self.showResults(nodes)
        self._worker.showStatus()

    # What the panel shows

    def _update(self, caller=None, event=None):
        """Bring everything that is not bound to a parameter in line with the parameters and the run."""
        parameters = self._parameterNode
        if parameters is not None:
            if self._modelName() != parameters.model:
                self._picker.choose(parameters.model)
            self._worker.chooseDevice(parameters.device)
            self._nameInputs()
        running = self._current.busy
        hindrance = _("A run is under way; cancel it or wait.") if running else self._hindrance()
        self.ui.applyButton.enabled = not hindrance
        self.ui.applyButton.toolTip = hindrance or _("Run the model on the image.")
        self.ui.cancelButton.enabled = running
        self.ui.runAgainButton.enabled = self._lastArguments is not None and not running
        self._models.update(running)
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

    def _modelName(self) -> str:
        model = self._picker.current()
        return model.name if model is not None else ""

    def _modelAtHand(self) -> str:
        """The chosen model's name; empty where there is none, or it has to be got first, or can't be read."""
        model = self._picker.current()
        return "" if model is None or model.offer is not None or model.spec is None else model.name

    def _spec(self) -> ModelSpec | None:
        """What the chosen model says of itself; None where there is none or it can't be read."""
        model = self._picker.current()
        return model.spec if model is not None else None

    def _inputNodes(self) -> "list[Any]":
        spec = self._spec()
        count = 1 if spec is None else len(self.inputNames(spec))
        return [self._parameterNode.getValue(name) for name in CHANNELS[:count]]

    def _nameInputs(self):
        """Show the inputs that the model takes, where it or they have changed; a section that was folded stays so."""
        spec = self._spec()
        names = (_("Image"),) if spec is None else tuple(self.inputNames(spec))
        shown = (names, self.inputsDependOn())
        if shown != self._inputsShown:
            self._inputsShown = shown
            name_selectors(self.ui, names)
            self.showInputs()


def bound_widgets(ui) -> "dict[str, Any]":
    """The widgets that the `.ui` file binds to parameters, by the parameters' names."""
    named = {widget.property(SlicerParameterNamePropertyName): widget for widget in vars(ui).values()}
    return {name: widget for name, widget in named.items() if name}
