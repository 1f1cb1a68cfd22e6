"""MedAISegment in Slicer: the module, its parameters, its panel, and its logic, which joins the scene to the worker.

The work is done in MedAILib; this process never imports PyTorch.
"""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import qt
import slicer
import slicer.util
import vtk
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, MedAILib stands beside this file; in a source tree one folder up, where Slicer does not look.
SOURCE_TREE = Path(__file__).resolve().parents[1]
if (SOURCE_TREE / "MedAILib").is_dir() and str(SOURCE_TREE) not in sys.path:
    sys.path.append(str(SOURCE_TREE))

from MedAILib.errors import InputError, MedAIError
from MedAILib.gui.ask import ask
from MedAILib.gui.before import warnings_before_run
from MedAILib.gui.devices import device_choices, nvidia_cards
from MedAILib.gui.diagnostics import diagnostics
from MedAILib.gui.follow import Arrival, FollowedRun, Follower, Listener
from MedAILib.gui.frames import FrameJobs
from MedAILib.gui.getting import Getting
from MedAILib.gui.models import ModelEntry, ModelPicker, known_models, licence_question
from MedAILib.gui.packages import ensure_packages, slicer_tools, slow_torch
from MedAILib.gui.show import center_3d_views, edit_segmentation, show_image, show_plot, show_table
from MedAILib.gui.words import progress_text, worker_text
from MedAILib.progress import Progress
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Segmentation
from MedAILib.scene.into import require_segmentation
from MedAILib.scene.origin import find_origin, origin_of
from MedAILib.scene.read import roi_from_node, volume_from_nodes
from MedAILib.scene.sequence_results import SequenceOutputs
from MedAILib.scene.sequences import SequenceRun, sequence_shown_in, shown_in
from MedAILib.scene.surfaces import add_surfaces
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Volume
from MedAILib.worker.client import Job, JobState, WorkerClient, WorkerDefect, WorkerStatus

# How many input channels the panel has a selector for; the Python console has no such limit.
MAX_CHANNELS = 8
# How long a message that no run follows is given to reach the worker.
MESSAGE_S = 1.0
# Where the user's own command for the worker is kept: in the settings, never in a scene.
COMMAND_SETTING = "MedAI/WorkerCommand"


class MedAISegment(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        self.parent.title = _("MedAI Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["MedAI contributors"]
        self.parent.helpText = _(
            "Segments images with deep-learning models, in a process of its own: the scene stays safe whatever happens "
            "to the model. The result is an editable segmentation with terminology, statistics and provenance."
            "<p>Choose a model and an image, press Apply. A model that was trained on crops wants a region of "
            "interest: its description says so. A run can be cancelled at any time.</p>"
            "<p><b>For research use only. Not a medical device.</b></p>"
        )
        self.parent.acknowledgementText = _(
            "The built-in hippocampus model was trained on Task04 of the Medical Segmentation Decathlon "
            "(CC BY-SA 4.0). MedAI stands on MONAI, PyTorch and 3D Slicer."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer an image for a first run in the Sample Data module."""
    from MedAILib.gui.samples import register_samples  # noqa: PLC0415  it needs a module of Slicer

    register_samples(Path(__file__).parent / "Resources" / "Icons" / "MedAISegment.png")


@parameterNodeWrapper
class MedAISegmentParameterNode:
    """What the panel shows, as it is saved with the scene.

    `inputVolume2` and so on are the further channels of a model that wants several; `overlapPercent` is -1 for the
    model's own. `allFrames` counts only where the image is shown from a sequence.
    """

    model: str = "hippocampus"
    inputVolume: vtkMRMLScalarVolumeNode
    inputVolume2: vtkMRMLScalarVolumeNode
    inputVolume3: vtkMRMLScalarVolumeNode
    inputVolume4: vtkMRMLScalarVolumeNode
    inputVolume5: vtkMRMLScalarVolumeNode
    inputVolume6: vtkMRMLScalarVolumeNode
    inputVolume7: vtkMRMLScalarVolumeNode
    inputVolume8: vtkMRMLScalarVolumeNode
    allFrames: bool = False
    roi: vtkMRMLMarkupsROINode
    device: str = "auto"
    outputSegmentation: vtkMRMLSegmentationNode
    surfaces: bool = True
    table: bool = True
    labelMap: bool = False
    probabilities: bool = False
    overlapPercent: Annotated[int, WithinRange(-1, 90)] = -1
    mirror: bool = False
    postprocess: bool = True


CHANNELS = ("inputVolume", *(f"inputVolume{number}" for number in range(2, MAX_CHANNELS + 1)))


class MedAISegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: shows the parameters, starts and follows a run, and brings its result before the user's eyes."""

    def __init__(self, parent=None):
        self.logic: Any = None  # first, since the base class may call setup
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None
        self._run: FollowedRun | None = None
        self._lastArguments: dict[str, Any] | None = None
        self._resultIDs: tuple[str, str] | None = None
        self._inputsShown: tuple[tuple[str, ...], bool] | None = None
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        super().setup()
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedAISegment.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = MedAISegmentLogic()
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
        self.ui.editButton.connect("clicked(bool)", self.onEditButton)
        self.ui.getModelButton.connect("clicked(bool)", self.onGetModelButton)
        self.ui.addModelButton.connect("clicked(bool)", self.onAddModelButton)
        self.ui.modelFolderButton.connect("clicked(bool)", self.onModelFolderButton)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDevicePicked)
        self.ui.freeMemoryButton.connect("clicked(bool)", self.onFreeMemoryButton)
        self.ui.restartWorkerButton.connect("clicked(bool)", self.onRestartWorkerButton)
        self.ui.workerCommandLineEdit.connect("editingFinished()", self.onWorkerCommandEdited)
        self.ui.copyDiagnosticsButton.connect("clicked(bool)", self.onCopyDiagnosticsButton)
        self.initializeParameterNode()

    def cleanup(self):
        """End the worker when the panel goes: Slicer closes, or the module is reloaded."""
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
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    # What the user does

    def onApplyButton(self):
        self._start(self._arguments)

    def onRunAgainButton(self):
        self._start(lambda: self._lastArguments or {})

    def onCancelButton(self):
        if self._run is not None:
            self._run.cancel()
            self._say(_("Cancelling"))

    def onEditButton(self):
        with slicer.util.tryWithErrorDisplay(_("The Segment Editor could not be opened.")):
            segmentationNode, volumeNode = (slicer.mrmlScene.GetNodeByID(x) for x in self._resultIDs or ("", ""))
            if segmentationNode is None:
                self._say(_("The last result is no longer in the scene."))
                return
            edit_segmentation(segmentationNode, volumeNode)

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
                frames = "sequenceNode" in arguments
                run = (self.logic.segmentSequenceAsync if frames else self.logic.segmentAsync)(
                    **arguments,
                    onDone=self._onDone,
                    onError=self._onError,
                    onProgress=self._onProgress,
                    onWarnings=self._onWarnings,
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
            self._log(_("{model} on {image}").format(model=arguments["model"], image=self._imageNames(arguments)))
        self._update()

    def _onWarnings(self, texts: "Sequence[str]") -> bool:
        """Ask whether to run all the same, in one box."""
        for text in texts:
            self._log(text)
        slicer.app.restoreOverrideCursor()  # nobody waits while a question is open
        try:
            return ask("\n\n".join(texts), _("Run all the same"), _("Don't run"), _("MedAI: before the run"))
        finally:
            slicer.app.setOverrideCursor(qt.Qt.WaitCursor)

    def _arguments(self) -> "dict[str, Any]":
        """What the panel says, as arguments of the logic; nodes by their ID."""
        parameters = self._parameterNode
        percent, output = parameters.overlapPercent, parameters.outputSegmentation
        both = {
            "model": parameters.model,
            "device": parameters.device,
            "roiNode": parameters.roi.GetID() if _present(parameters.roi) else None,
            "labelMap": parameters.labelMap,
            "table": parameters.table,
            "mirror": parameters.mirror,
            "overlap": None if percent < 0 else percent / 100,
            "postprocess": parameters.postprocess,
        }
        sequenceNode = self._sequenceNode() if parameters.allFrames else None
        if sequenceNode is not None:
            return {"sequenceNode": sequenceNode.GetID(), **both}
        return {
            "volumeNode": [node.GetID() for node in self._inputNodes()],
            "segmentationNode": output.GetID() if _present(output) else None,
            "probabilities": parameters.probabilities,
            "surfaces": parameters.surfaces,
            **both,
        }

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
        self._showResults(nodes)
        self._fillDevices()
        self._update()

    def _showResults(self, nodes):
        with slicer.util.tryWithErrorDisplay(_("The result is in the scene but could not be shown.")):
            if nodes[0].IsA("vtkMRMLSequenceNode"):
                self._showFrames(nodes)
                return
            segmentationNode = nodes[0]
            volumeNode = slicer.mrmlScene.GetNodeByID((self._lastArguments or {})["volumeNode"][0])
            self._resultIDs = segmentationNode.GetID(), volumeNode.GetID()
            names = ", ".join(node.GetName() for node in nodes)
            self._log(_("Done: {names}").format(names=names))
            count = segmentationNode.GetSegmentation().GetNumberOfSegments()
            if count:
                self._say(_("Done: {count} segments in {name}.").format(count=count, name=segmentationNode.GetName()))
            else:
                self._say(_("Done, but the model found nothing. Does the image show what the model is for?"))
            show_image(volumeNode)
            if segmentationNode.GetSegmentation().ContainsRepresentation("Closed surface"):
                center_3d_views()
            tables = [node for node in nodes if node.IsA("vtkMRMLTableNode")]
            if tables:
                show_table(tables[0])

    def _showFrames(self, nodes):
        """Show the frame that the browser is at, and the volumes over all frames."""
        sequenceNode = slicer.mrmlScene.GetNodeByID((self._lastArguments or {})["sequenceNode"])
        segmentationNode, volumeNode = shown_in(nodes[0]), shown_in(sequenceNode)
        if segmentationNode is not None and volumeNode is not None:
            self._resultIDs = segmentationNode.GetID(), volumeNode.GetID()
            show_image(volumeNode)
        self._log(_("Done: {names}").format(names=", ".join(node.GetName() for node in nodes)))
        count = sequenceNode.GetNumberOfDataNodes()
        self._say(_("Done: {count} frames in {name}.").format(count=count, name=nodes[0].GetName()))
        for chartNode in [node for node in nodes if node.IsA("vtkMRMLPlotChartNode")]:
            show_plot(chartNode)

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
        self.ui.runAgainButton.enabled = self._lastArguments is not None and not running
        self.ui.editButton.enabled = self._resultIDs is not None and not running

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
        if len(model.spec.channels) > MAX_CHANNELS:
            return _("This model wants more images than the panel can take; call it from the Python console.")
        missing = [x for x, node in zip(model.spec.channels, self._inputNodes(), strict=True) if not _present(node)]
        return _("Choose an image for: {channels}").format(channels=", ".join(missing)) if missing else ""

    def _sequenceNode(self):
        """The sequence that the chosen image is shown from, where a run can take all of its frames; else None."""
        nodes = self._inputNodes()
        return sequence_shown_in(nodes[0]) if len(nodes) == 1 and _present(nodes[0]) else None

    def _inputNodes(self) -> "list[Any]":
        model = self._picker.current()
        count = len(model.spec.channels) if model is not None and model.spec is not None else 1
        return [self._parameterNode.getValue(name) for name in CHANNELS[:count]]

    def _nameChannels(self):
        """One selector for each channel of the model, by the model's own name for it."""
        model = self._picker.current()
        channels = model.spec.channels if model is not None and model.spec is not None else (_("Image"),)
        frames = self._sequenceNode() is not None
        if (channels, frames) == self._inputsShown:
            return  # a section that the user folded stays so
        self._inputsShown = (channels, frames)
        for number, name in enumerate(CHANNELS):
            label, selector = getattr(self.ui, f"{name}Label"), getattr(self.ui, f"{name}Selector")
            label.visible = selector.visible = number < len(channels)
            if number < len(channels):
                label.text = f"{channels[number]}:"
        self.ui.allFramesCheckBox.visible = frames

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


class MedAISegmentLogic(ScriptedLoadableModuleLogic):
    """Takes nodes to the worker and its results to the scene; needs no panel.

    The worker starts with the first run and stays warm until `close`.

    Args:
        client: runs the models; None makes one for this logic when it is first needed.

    Example::

        logic = slicer.util.getModuleLogic("MedAISegment")
        segmentationNode = logic.segment(volumeNode, model="hippocampus")[0]
        job = logic.segmentAsync(volumeNode, model="hippocampus", onDone=print)
    """

    def __init__(self, client: WorkerClient | None = None):
        super().__init__()
        self._client = client
        self._follower: Follower | None = None

    def getParameterNode(self):
        wrapper: Any = MedAISegmentParameterNode  # the decorator gave it a constructor
        return wrapper(super().getParameterNode())

    def segment(self, volumeNode, model="hippocampus", device="auto", **options):
        """Segment an image and wait for the result.

        Args:
            volumeNode: a scalar volume node or its ID, or a list of them, one per channel in the model's order; the
                others are put on the first one's grid.
            model: a model's name, or the path of a bundle.
            device: "auto", "cpu", "cuda" or "cuda:1".
            options: `roiNode`, a markups ROI node or its ID, inside of whose box alone the model runs;
                `labelMap`, `probabilities`, `surfaces`, `uncertainty` (each voxel's entropy), `table` (all False but
                `table`), which nodes to make besides the segmentation; `mirror`, to average over mirrored copies as
                the model allows; `overlap` of windows, 0 to below 1, None for the model's own; `postprocess` (True), to
                clean up as the model asks;
                `segmentationNode`, one that takes the new segments beside those that it has.

        Returns:
            The new nodes, the segmentation node first.

        Raises:
            MedAIError: the input, an option or the model is at fault, or the worker was lost; or the image was
                removed in the meantime. Nothing has been added to the scene then.
        """
        run = _Run(volumeNode, model, device, **options)
        _logAll(self._warnings(run))
        result = self._wait(run.submit(self._worker()))
        arrival = run.arrive(result)
        while True:
            try:
                next(arrival)
            except StopIteration as stop:
                return stop.value

    def segmentSequence(
        self,
        sequenceNode,
        model="hippocampus",
        device="auto",
        *,
        roiNode=None,
        outputs=None,
        mirror=False,
        progress=None,
    ):
        """Segment every frame of a sequence of volumes, one after the other, and wait for the results.

        Playback is not touched: what the views show stays as it is, and may be played meanwhile.

        Args:
            sequenceNode: a sequence node of scalar volumes, or a sequence browser node of one.
            model: a model's name, or the path of a bundle.
            device: "auto", "cpu", "cuda" or "cuda:1".
            roiNode: a markups ROI node; the model runs inside of its box alone, as it lies to the volume shown.
            outputs: a `SequenceOutputs`; None makes a sequence of segmentations, a table of volumes and its plot.
            mirror: average over mirrored copies, as the model allows.
            progress: a `Progress` that hears of each frame before it is run, and can cancel between them.

        Returns:
            The new nodes, the sequence of segmentations first; the sequence's browser shows it in step.

        Raises:
            MedAIError: the input, an option or the model is at fault, with the frame's number; or the sequence was
                removed in the meantime. Nothing has been added to the scene then.
            Cancelled: by `progress`, likewise.
        """
        run = _FramesRun(sequenceNode, model, device, roiNode=roiNode, outputs=outputs, mirror=mirror)
        _logAll(self._warnings(run))
        worker = self._worker()
        return run.frames.run(
            lambda volume: self._wait(worker.submit(run.request, volume)),
            progress or Progress(),
        )

    def segmentSequenceAsync(
        self,
        sequenceNode,
        model="hippocampus",
        device="auto",
        *,
        onDone=print,
        onError=None,
        onProgress=None,
        onWarnings=None,
        **options,
    ) -> FollowedRun | None:
        """Begin to segment every frame of a sequence of volumes, and return at once; playback is not touched.

        Args:
            sequenceNode: a sequence node of scalar volumes, a sequence browser node of one, or an ID of these.
            model: as for `segment`.
            device: as for `segment`.
            onDone: called with the new nodes, the sequence of segmentations first, once they are in the scene.
            onError: as for `segmentAsync`.
            onProgress: called with each new state; its text is "Frame 3 of 20" and the like.
            onWarnings: as for `segmentAsync`, of the first frame.
            options: `roiNode`, `labelMap`, `table` (with a plot), `mirror`, `overlap` and `postprocess`, as for
                `segment`.

        Returns:
            As `segmentAsync`. Until the last frame is done nothing is in the scene.

        Raises:
            MedAIError: the input or an option is at fault.
        """
        run = _FramesRun(sequenceNode, model, device, **options)
        return self._begin(run, Listener(onDone, onError or _logError, onProgress or _ignore), onWarnings)

    def segmentAsync(
        self,
        volumeNode,
        model="hippocampus",
        device="auto",
        *,
        onDone=print,
        onError=None,
        onProgress=None,
        onWarnings=None,
        **options,
    ) -> FollowedRun | None:
        """Begin to segment an image, and return at once.

        Args:
            volumeNode: as for `segment`.
            model: as for `segment`.
            device: as for `segment`.
            onDone: called with the new nodes, the segmentation node first, once they are in the scene.
            onError: called with what went wrong; None writes it to the log.
            onProgress: called with each new state.
            onWarnings: called before the run with what speaks against it, if anything does; returns whether to run
                all the same. None writes it to the log, and runs.
            options: as for `segment`.

        Returns:
            The run: `poll()` says how it stands, `cancel()` stops it. None where `onWarnings` was against it.

        Raises:
            MedAIError: the input or an option is at fault.
        """
        run = _Run(volumeNode, model, device, **options)
        return self._begin(run, Listener(onDone, onError or _logError, onProgress or _ignore), onWarnings)

    def _begin(self, run, listener, onWarnings) -> FollowedRun | None:
        """Follow a run, if nothing speaks against it."""
        texts = self._warnings(run)
        if texts and not (onWarnings or _logAll)(texts):
            return None
        return self._follow(FollowedRun(run.submit(self._worker()), run.obstacle, run.arrive, listener))

    def _follow(self, followed) -> FollowedRun:
        if self._follower is None:
            self._follower = Follower()
        self._follower.follow(followed)
        return followed

    def models(self) -> list[ModelEntry]:
        """The models at hand and those that can be downloaded, with what is known of each."""
        return known_models()

    def getModelAsync(self, source, *, onDone=print, onError=None, onProgress=None) -> FollowedRun:
        """Begin to download or add a model, and return at once; its licence is the caller's to look at (`models`).

        Args:
            source: a name of the catalogue, an https address, or the path of a folder, an archive or a file.
            onDone: called with the name by which the model is found then.
            onError: as for `segmentAsync`.
            onProgress: as for `segmentAsync`.

        Returns:
            The run: `poll()` says how it stands, `cancel()` stops it and leaves the models as they were.
        """
        listener = Listener(onDone, onError or _logError, onProgress or _ignore)
        return self._follow(FollowedRun(Getting(source), lambda: None, _asItIs, listener))

    def freeMemory(self):
        """Let the worker forget the models that it keeps ready."""
        if self._client is not None:
            self._client.free_memory()
            self._breathe()

    def restartWorker(self):
        """End the worker; the next run starts a new one."""
        if self._client is not None:
            self._client.restart()
            self._breathe()

    def workerStatus(self) -> WorkerStatus:
        """What the worker last said of its memory, devices and warm models."""
        return self._client.status() if self._client is not None else WorkerStatus()

    def workerCommand(self) -> str:
        """The user's own command for the worker; empty for this computer's own."""
        return str(slicer.app.settings().value(COMMAND_SETTING, "") or "")

    def setWorkerCommand(self, command: str):
        """Run models by this command from the next run on, such as "ssh gpu-box /opt/python -m MedAILib.worker.server".

        It is kept for the user. Images are sent to where it leads; empty runs models on this computer.

        Raises:
            MedAIError: the command's quotes don't match.
        """
        if command == self.workerCommand():
            return
        _words(command)
        slicer.app.settings().setValue(COMMAND_SETTING, command)
        self.close()

    def destination(self) -> str:
        """Where images go: empty for this computer, else the host or the command."""
        return self._worker().destination

    def versions(self) -> "dict[str, Any]":
        """What the worker last said of itself; empty before it started."""
        return self._client.versions if self._client is not None else {}

    def diagnostics(self, model="", log="") -> str:
        """Versions, the model and the worker's last words, to be sent with a question."""
        last_words = self._client.log if self._client is not None else ""
        return diagnostics(self.versions(), last_words, [f"Model: {model}"] if model else [], log)

    def close(self):
        """End the worker; the next run starts a new one."""
        if self._follower is not None:
            self._follower.stop()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _warnings(self, run: "_Run | _FramesRun") -> "tuple[str, ...]":
        """What speaks against a run; raises InputError where it would be refused."""
        return warnings_before_run(run.request, run.volume, self.workerStatus(), self.destination())

    @staticmethod
    def _wait(job: Job) -> Segmentation:
        try:
            result = job.result()
            for text in job.poll().warnings:
                logging.warning(text)
            return result
        finally:
            job.cancel()  # for who interrupts the waiting; a run that has ended takes no notice

    def _worker(self) -> WorkerClient:
        if self._client is None:
            self._client = WorkerClient(_words(self.workerCommand()) or None)
        return self._client

    def _breathe(self):
        if self._follower is None:
            self._follower = Follower()
        self._follower.breathe(MESSAGE_S)


class _Run:
    """What one run needs of the scene: read at its beginning, found again at its end, never kept by pointer."""

    def __init__(
        self,
        volumeNode,
        model,
        device,
        *,
        roiNode=None,
        probabilities=False,
        labelMap=False,
        surfaces=False,
        table=True,
        segmentationNode=None,
        mirror=False,
        overlap=None,
        postprocess=True,
        uncertainty=False,
    ):
        several = isinstance(volumeNode, Sequence) and not isinstance(volumeNode, str)
        nodes = [_node(item, _("image")) for item in (volumeNode if several else [volumeNode])]
        self._volume: Volume | None = volume_from_nodes(nodes)
        roi = None if roiNode is None else roi_from_node(_node(roiNode, _("region of interest")), nodes[0])
        self.request = RunRequest(
            model,
            device,
            RunOptions(roi, probabilities, mirror, postprocess, overlap, uncertainty),
            statistics=True,
        )
        self._job: Job | None = None
        into = None if segmentationNode is None else _node(segmentationNode, _("segmentation")).GetID()
        self._outputs = Outputs(
            label_map=labelMap, probabilities=probabilities, table=table, into=into, uncertainty=uncertainty
        )
        self._surfaces = surfaces
        self._scene, self._origin = nodes[0].GetScene(), origin_of(nodes[0])
        if into is not None:
            require_segmentation(self._scene, into, nodes[0])

    @property
    def volume(self) -> Volume:
        """The image, until it is submitted."""
        assert self._volume is not None
        return self._volume

    def submit(self, client: WorkerClient) -> Job:
        """Hand the image over; the job lets it go when it ends."""
        volume, self._volume = self.volume, None
        self._job = client.submit(self.request, volume)
        return self._job

    def obstacle(self) -> InputError | None:
        """Why the result has no place any more."""
        try:
            source = find_origin(self._scene, self._origin)
            if self._outputs.into is not None:
                require_segmentation(self._scene, self._outputs.into, source)
        except InputError as error:
            return error
        return None

    def arrive(self, result: Segmentation) -> Arrival:
        """Put the result into the scene, in steps; returns the new nodes.

        Raises:
            InputError: there is no place for it any more.
        """
        obstacle = self.obstacle()
        if obstacle is not None:
            raise obstacle
        nodes = write_result(
            result,
            find_origin(self._scene, self._origin),
            self._outputs,
            statistics=None if self._job is None else self._job.statistics,
        )
        ids = [node.GetID() for node in nodes]
        if self._surfaces:
            for done, total in add_surfaces(nodes[0]):
                yield JobState("running", _("Surfaces"), done, total)
                if self._scene.GetNodeByID(ids[0]) is None:
                    raise InputError("The segmentation was removed from the scene before it was complete.")
        return [node for node in map(self._scene.GetNodeByID, ids) if node is not None]


class _FramesRun:
    """What a run over all frames of a sequence needs of the scene; stands where `_Run` does."""

    def __init__(
        self,
        sequenceNode,
        model,
        device,
        *,
        roiNode=None,
        labelMap=False,
        table=True,
        mirror=False,
        overlap=None,
        postprocess=True,
        outputs=None,
    ):
        outputs = outputs or SequenceOutputs(label_maps=labelMap, table=table, plot=table)
        self.frames = SequenceRun(_node(sequenceNode, _("sequence")), outputs)
        regionNode = None if roiNode is None else _node(roiNode, _("region of interest"))
        roi = None if regionNode is None else roi_from_node(regionNode, self.frames.shown_volume())
        options = RunOptions(roi, mirror=mirror, postprocess=postprocess, overlap=overlap)
        self.request = RunRequest(model, device, options)

    @property
    def volume(self) -> Volume:
        """The image of the next frame."""
        with self.frames.naming():
            return self.frames.volume()

    def submit(self, client: WorkerClient) -> FrameJobs:
        """Hand the first frame over, and the others as their turn comes."""
        return FrameJobs(self.frames, lambda volume: client.submit(self.request, volume))

    def obstacle(self) -> InputError | None:
        """Why the results have no place any more."""
        try:
            self.frames.check()
        except InputError as error:
            return error
        return None

    def arrive(self, frames: SequenceRun) -> Arrival:
        """Put all results into the scene at once; returns the new nodes.

        Raises:
            InputError: there is no place for them any more.
        """
        yield JobState("running", _("Placing the results"))
        return frames.finish()


def _node(nodeOrID, what: str):
    """The node of an ID in Slicer's scene; a node as it is."""
    if not isinstance(nodeOrID, str):
        return nodeOrID
    node = slicer.mrmlScene.GetNodeByID(nodeOrID)
    if node is None:
        raise InputError(f"The {what} {nodeOrID} is not in the scene any more; choose another.")
    return node


def _logError(error: Exception):
    logging.error(str(error))


def _asItIs(result) -> Arrival:
    """An arrival that has nothing to place."""
    yield JobState("running", _("Finishing"))
    return result


def _ignore(state: JobState):
    """For who does not want to know how a run stands."""


def _logAll(texts: "Sequence[str]") -> bool:
    """Write warnings to the log, and go on."""
    for text in texts:
        logging.warning(text)
    return True


def _words(command: str) -> "list[str]":
    """A command line in its parts, as a shell takes it."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise InputError(f"The worker command {command} can't be read ({error}); check its quotes.") from error


def _present(node) -> bool:
    """Whether a parameter's node is there: a parameter may still know a node that has left the scene."""
    return node is not None and node.GetScene() is not None


class MedAISegmentTest(ScriptedLoadableModuleTest):
    """Runs inside of Slicer: Reload and Test in developer mode, or ctest after a build."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        self.logic = MedAISegmentLogic()
        self.addCleanup(self.logic.close)

    def runTest(self):
        self.setUp()
        try:
            self.test_segmentationLiesOnItsVolume()
        finally:
            self.doCleanups()

    def test_segmentationLiesOnItsVolume(self):
        """The built-in model gives a segmentation that has the volume as its reference geometry."""
        self.delayDisplay("Segmenting with the built-in model")
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Ramp")
        ramp = np.arange(36 * 48 * 40, dtype=np.float32).reshape(36, 48, 40)  # K, J, I
        slicer.util.updateVolumeFromArray(volumeNode, ramp)
        nodes = self.logic.segment(volumeNode, model="hippocampus", device="cpu", labelMap=True)
        segmentationNode = nodes[0]
        self.assertTrue(segmentationNode.IsA("vtkMRMLSegmentationNode"))
        self.assertIsNotNone(segmentationNode.GetAttribute("MedAI.sha256"))
        role = segmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertEqual(segmentationNode.GetNodeReferenceID(role), volumeNode.GetID())
        self.assertTrue(any(node.IsA("vtkMRMLLabelMapVolumeNode") for node in nodes))
        self.delayDisplay("Test passed")
