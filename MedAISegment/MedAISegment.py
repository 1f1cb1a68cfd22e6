"""MedAISegment in Slicer: the module, its parameters, its panel, and its logic, which joins the scene to the worker.

The work is done in MedAILib; this process never imports PyTorch.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import slicer
import slicer.util
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

# Installed, MedAILib stands beside this file; in a source tree one folder up, where Slicer does not look.
SOURCE_TREE = Path(__file__).resolve().parents[1]
if (SOURCE_TREE / "MedAILib").is_dir() and str(SOURCE_TREE) not in sys.path:
    sys.path.append(str(SOURCE_TREE))

from MedAILib.errors import InputError
from MedAILib.gui.fine_tuning import FineTuning, training_request
from MedAILib.gui.follow import FollowedRun
from MedAILib.gui.logic import ModelLogic, as_it_is, listening, log_all
from MedAILib.gui.module_test import ModuleTest
from MedAILib.gui.nodes import id_of, is_there, node_of, nodes_of
from MedAILib.gui.panel import ModelPanel
from MedAILib.gui.show import center_3d_views, edit_segmentation, show_image, show_plot, show_table
from MedAILib.gui.training_section import TrainingSection
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.runs.generate import generate_run
from MedAILib.runs.segment import FramesRun, SegmentRun
from MedAILib.scene.read import roi_from_node
from MedAILib.scene.sequences import holds_volumes, sequence_shown_in, shown_in
from MedAILib.scene.training_set import AddedCase, add_training_case
from MedAILib.store.find import find_model


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
    model's own. `allFrames` counts only where the image is shown from a sequence; `inputSequence`, where there is one,
    takes the image's place. `trainingEpochs` is 0 for as many as are planned.
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
    inputSequence: vtkMRMLSequenceNode
    roi: vtkMRMLMarkupsROINode
    device: str = "auto"
    outputSegmentation: vtkMRMLSegmentationNode
    surfaces: bool = True
    table: bool = True
    labelMap: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    overlapPercent: Annotated[int, WithinRange(-1, 90)] = -1
    mirror: bool = False
    precision: Annotated[str, Choice(["auto", "float32", "half"])] = "auto"
    postprocess: bool = True
    trainingFolder: str = ""
    trainingSegmentation: vtkMRMLSegmentationNode
    trainedName: str = ""
    trainingEpochs: Annotated[int, WithinRange(0, 10000)] = 30


class MedAISegmentWidget(ModelPanel):
    """The panel of segmentation: what a run is to make, and its result before the user's eyes."""

    UI = "UI/MedAISegment.ui"

    def __init__(self, parent=None):
        self._resultIDs: tuple[str, str] | None = None
        super().__init__(parent)

    def makeLogic(self):
        return MedAISegmentLogic()

    def connectOwn(self):
        self.ui.editButton.connect("clicked(bool)", self.onEditButton)
        self._training = TrainingSection(
            self.ui, self.logic, self._current, self._messages, self._models.here, self._trainingInputs
        )

    def _trainingInputs(self):
        return self._parameterNode, [] if self._parameterNode is None else self._inputNodes()

    def onEditButton(self):
        with slicer.util.tryWithErrorDisplay(_("The Segment Editor could not be opened.")):
            segmentationNode, volumeNode = (slicer.mrmlScene.GetNodeByID(x) for x in self._resultIDs or ("", ""))
            if segmentationNode is None:
                self._messages.say(_("The last result is no longer in the scene."))
                return
            edit_segmentation(segmentationNode, volumeNode)

    def arguments(self) -> "dict[str, Any]":
        """What the panel says, as arguments of the logic; nodes by their ID."""
        parameters = self._parameterNode
        percent = parameters.overlapPercent
        both = {
            "model": parameters.model,
            "device": parameters.device,
            "roiNode": id_of(parameters.roi),
            "labelMap": parameters.labelMap,
            "table": parameters.table,
            "probabilities": parameters.probabilities,
            "uncertainty": parameters.uncertainty,
            "surfaces": parameters.surfaces,
            "mirror": parameters.mirror,
            "overlap": None if percent < 0 else percent / 100,
            "precision": parameters.precision,
            "postprocess": parameters.postprocess,
        }
        sequenceNode = self._chosenSequence() or (self._sequenceNode() if parameters.allFrames else None)
        if sequenceNode is not None:
            return {"sequenceNode": sequenceNode.GetID(), **both}
        return {
            "volumeNode": [node.GetID() for node in self._inputNodes()],
            "segmentationNode": id_of(parameters.outputSegmentation),
            **both,
        }

    def begin(self, arguments, **listeners) -> FollowedRun | None:
        frames = "sequenceNode" in arguments
        return (self.logic.segmentSequenceAsync if frames else self.logic.segmentAsync)(**arguments, **listeners)

    def showResults(self, nodes):
        if nodes[0].IsA("vtkMRMLSequenceNode"):
            self._showFrames(nodes)
            return
        segmentationNode = nodes[0]
        volumeNode = slicer.mrmlScene.GetNodeByID((self._lastArguments or {})["volumeNode"][0])
        self._resultIDs = segmentationNode.GetID(), volumeNode.GetID()
        self._parameterNode.trainingSegmentation = segmentationNode
        names = ", ".join(node.GetName() for node in nodes)
        self._messages.log(_("Done: {names}").format(names=names))
        count = segmentationNode.GetSegmentation().GetNumberOfSegments()
        if count:
            self._messages.say(
                _("Done: {count} segments in {name}.").format(count=count, name=segmentationNode.GetName())
            )
        else:
            self._messages.say(_("Done, but the model found nothing. Does the image show what the model is for?"))
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
        self._messages.log(_("Done: {names}").format(names=", ".join(node.GetName() for node in nodes)))
        count = sequenceNode.GetNumberOfDataNodes()
        self._messages.say(_("Done: {count} frames in {name}.").format(count=count, name=nodes[0].GetName()))
        if segmentationNode is not None and segmentationNode.GetSegmentation().ContainsRepresentation("Closed surface"):
            center_3d_views()
        for chartNode in [node for node in nodes if node.IsA("vtkMRMLPlotChartNode")]:
            show_plot(chartNode)

    def updateOwn(self, running):
        self.ui.editButton.enabled = self._resultIDs is not None and not running
        self._training.update(running)
        inputsUsed = self._chosenSequence() is None
        self.ui.inputVolumeSelector.enabled = self.ui.allFramesCheckBox.enabled = inputsUsed
        self.ui.outputSegmentationSelector.enabled = inputsUsed and not self._allFrames()

    def ownHindrance(self):
        sequenceNode = self._chosenSequence()
        if sequenceNode is not None and not holds_volumes(sequenceNode):
            return _("{name} is no sequence of images; choose another.").format(name=sequenceNode.GetName())
        return ""

    def imagesNeeded(self):
        return self._chosenSequence() is None

    def inputsDependOn(self):
        return self._sequenceNode() is not None

    def showInputs(self):
        self.ui.allFramesCheckBox.visible = self._sequenceNode() is not None
        self.ui.inputSequenceLabel.visible = self.ui.inputSequenceSelector.visible = len(self._inputNodes()) == 1

    def _allFrames(self) -> bool:
        parameters = self._parameterNode
        return parameters is not None and parameters.allFrames and self._sequenceNode() is not None

    def _chosenSequence(self):
        """The sequence that is chosen by itself, where the model takes one image a frame; else None."""
        parameters = self._parameterNode
        if parameters is None or len(self._inputNodes()) != 1:
            return None
        return parameters.inputSequence if is_there(parameters.inputSequence) else None

    def _sequenceNode(self):
        """The sequence that the chosen image is shown from, where a run can take all of its frames; else None."""
        nodes = self._inputNodes()
        return sequence_shown_in(nodes[0]) if len(nodes) == 1 and is_there(nodes[0]) else None


class MedAISegmentLogic(ModelLogic):
    """Takes nodes to the worker and its results to the scene; needs no panel.

    The worker starts with the first run and stays warm until `close`.

    Args:
        client: runs the models; None takes the worker that all of MedAI's modules share.

    Example::

        logic = slicer.util.getModuleLogic("MedAISegment")
        segmentationNode = logic.segment(volumeNode, model="hippocampus")[0]
        job = logic.segmentAsync(volumeNode, model="hippocampus", onDone=print)
    """

    TASKS = ("segmentation",)

    def getParameterNode(self):
        return self.wrapped(MedAISegmentParameterNode)

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
                clean up as the model asks; `precision` of the network, "auto", "float32" or "half" (where possible);
                `segmentationNode`, one that takes the new segments beside those that it has; `trustCode`, the SHA-256
                of a model that you allow to execute code of its own.

        Returns:
            The new nodes, the segmentation node first.

        Raises:
            MedAIError: the input, an option or the model is at fault, or the worker was lost; or the image was
                removed in the meantime. Nothing has been added to the scene then.
        """
        return self._runToEnd(SegmentRun(volumeNode, model, device, **options))

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
        run = FramesRun(sequenceNode, model, device, roiNode=roiNode, outputs=outputs, mirror=mirror)
        log_all(self._outlook(run, run.volume).warnings)
        worker = self._worker()
        return run.frames.run(
            lambda volume: self._wait(worker.submit(run.request, volume)),
            progress or Progress(),
        )

    def segmentAsync(self, volumeNode, model="hippocampus", device="auto", **options) -> FollowedRun | None:
        """Begin to segment an image, and return at once.

        Args:
            volumeNode: as for `segment`.
            model: as for `segment`.
            device: as for `segment`.
            options: as for `segment`, and who is told. `onDone` (print) is called with the new nodes, the segmentation
                node first, once they are in the scene; `onError` with what went wrong, None writes it to the log;
                `onProgress` with each new state; `onWarnings` before the run with what speaks against it, if anything
                does: it returns whether to run all the same, and None writes it to the log, and runs.

        Returns:
            The run: `poll()` says how it stands, `cancel()` stops it. None where `onWarnings` was against it.

        Raises:
            MedAIError: the input or an option is at fault.
        """
        return self._begin(SegmentRun, volumeNode, model, device, **options)

    def segmentSequenceAsync(self, sequenceNode, model="hippocampus", device="auto", **options) -> FollowedRun | None:
        """Begin to segment every frame of a sequence of volumes, and return at once; playback is not touched.

        Args:
            sequenceNode: a sequence node of scalar volumes, a sequence browser node of one, or an ID of these.
            model: as for `segment`.
            device: as for `segment`.
            options: `roiNode`, `labelMap`, `probabilities`, `uncertainty`, `surfaces`, `table` (with a plot), `mirror`,
                `overlap`, `precision` and `postprocess`, as for `segment`, and who is told, as for `segmentAsync`: the
                sequence of segmentations is the first node, the text of a state is "Frame 3 of 20" and the like, and
                warnings are of the first frame.

        Returns:
            As `segmentAsync`. Until the last frame is done nothing is in the scene.

        Raises:
            MedAIError: the input or an option is at fault.
        """
        return self._begin(FramesRun, sequenceNode, model, device, **options)

    def generate(self, model, count=1, seed=0, device="auto", *, volumeNode=None):
        """Make images by a model, and wait for them. They show no patient.

        Args:
            model: a model's name, or the path of a bundle, that makes images from noise, or from an image.
            count: how many images from noise.
            seed: of the first one's noise; the next ones have the next seeds. The same seed gives the same image.
            device: "auto", "cpu", "cuda" or "cuda:1".
            volumeNode: what an image is made of, for a model that takes one: as for `segment`. It makes one image, on
                the same grid.

        Returns:
            The new volume nodes, one for each image and channel; of noise each has its seed as attribute "MedAI.seed".

        Raises:
            MedAIError: an argument or the model is at fault, the worker was lost, or `volumeNode` was removed in the
                meantime. Nothing has been added to the scene then.
        """
        return self._runToEnd(generate_run(model, count, seed, device, volumeNode=volumeNode))

    def generateAsync(self, model, count=1, seed=0, device="auto", **options) -> FollowedRun | None:
        """Begin to make images, and return at once; arguments as for `generate`, who is told as for `segmentAsync`.

        Images of noise are dropped where the scene is closed before they come.
        """
        return self._begin(generate_run, model, count, seed, device, **options)

    def addToTrainingSet(self, volumeNode, segmentationNode, folder, model="", roiNode=None) -> AddedCase:
        """Add an image and its corrected segmentation to a folder of labelled images, which `fineTune` learns from.

        An image that is there already gets the new labels. The scene stays as it is.

        Args:
            volumeNode: a scalar volume node or its ID, or a list of them, one per channel.
            segmentationNode: its structures, or its ID; segments are told by their names.
            folder: made if it is absent.
            model: whose structures and channels a new folder has; segments of other names come after them.
            roiNode: a markups ROI node or its ID: the part of the image that is added; None for all of it.

        Returns:
            The case's name, whether it was there, its structures, and how many cases there are now.

        Raises:
            MedAIError: what is wrong with the image, the segments or the folder; nothing is written then.
        """
        if not str(folder):
            raise InputError("No folder was given; choose where the training set is to be.")
        spec = read_spec(find_model(model)) if model else None
        labels = {label.value: label.name for label in spec.labels} if spec else None
        nodes = nodes_of(volumeNode, _("image"))
        segmentation = node_of(segmentationNode, _("segmentation"))
        roi = None if roiNode is None else roi_from_node(node_of(roiNode, _("region of interest")), nodes[0])
        return add_training_case(nodes, segmentation, Path(folder), labels, spec.channels if spec else (), roi)

    def fineTune(self, folder, name, model="", **options):
        """Train a model on a training set, starting from another, and wait for it; see `fineTuneAsync`.

        Returns:
            The name by which the new model is found.

        Raises:
            MedAIError: the name is taken, or the data or an option is at fault.
        """
        return self._wait(FineTuning(training_request(folder, name, model, **options)))

    def fineTuneAsync(
        self, folder, name, model="", *, onDone=print, onError=None, onProgress=None, **options
    ) -> FollowedRun:
        """Begin to train a model on a training set, in a process of its own, and return at once.

        Args:
            folder: of a training set (`addToTrainingSet`), or any that `medai train` takes.
            name: by which the new model will be found.
            model: a model's name or path, whose network and weights it starts from; empty to start anew.
            onDone: called with the name, once the model is among the others.
            onError: called with what went wrong; None writes it to the log.
            onProgress: called with each new state.
            options: `epochs` (0: as planned), `device` ("auto"), `settings`, a list of "key=value" as `medai train
                --set` takes them, and `resume` (False): True goes on with a training that was stopped, "auto" does so
                where there is one of the same name, images and settings, and else begins anew.

        Returns:
            The run: `poll()` says how it stands, `cancel()` stops it; `resume` goes on from the last whole epoch.

        Raises:
            InputError: no folder or no name was given, the name is taken, or there is no such model.
        """
        job = FineTuning(training_request(folder, name, model, **options))
        return self._shared.follow(FollowedRun(job, lambda: None, as_it_is, listening(onDone, onError, onProgress)))


class MedAISegmentTest(ModuleTest):
    """Runs inside of Slicer: Reload and Test in developer mode, or ctest after a build."""

    def test_segmentationLiesOnItsVolume(self):
        """The built-in model gives a segmentation that has the volume as its reference geometry."""
        self.delayDisplay("Segmenting with the built-in model")
        volumeNode, logic = self.addRamp(), MedAISegmentLogic()
        self.addCleanup(logic.close)
        nodes = logic.segment(volumeNode, model="hippocampus", device="cpu", labelMap=True)
        segmentationNode = nodes[0]
        self.assertTrue(segmentationNode.IsA("vtkMRMLSegmentationNode"))
        self.assertIsNotNone(segmentationNode.GetAttribute("MedAI.sha256"))
        role = segmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertEqual(segmentationNode.GetNodeReferenceID(role), volumeNode.GetID())
        self.assertTrue(any(node.IsA("vtkMRMLLabelMapVolumeNode") for node in nodes))
        self.delayDisplay("Test passed")
