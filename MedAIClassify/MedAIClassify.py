"""MedAIClassify in Slicer: what an image shows, the voxels that speak for it, and boxes around findings.

The work is done in MedAILib; this process never imports PyTorch.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import qt
import slicer
import slicer.util
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

# Installed, MedAILib stands beside this file; in a source tree one folder up, where Slicer does not look.
SOURCE_TREE = Path(__file__).resolve().parents[1]
if (SOURCE_TREE / "MedAILib").is_dir() and str(SOURCE_TREE) not in sys.path:
    sys.path.append(str(SOURCE_TREE))

from MedAILib.errors import InputError, MedAIError
from MedAILib.files.reports import REPORT_ENDINGS, write_report
from MedAILib.gui.ask import choose, nobody_waits
from MedAILib.gui.combo import offer
from MedAILib.gui.covariates import covariates_of
from MedAILib.gui.dicom_files import dicom_files, require_highdicom
from MedAILib.gui.follow import FollowedRun
from MedAILib.gui.linked_views import LinkedViews
from MedAILib.gui.logic import ModelLogic
from MedAILib.gui.module_test import ModuleTest
from MedAILib.gui.nodes import id_of, is_there, node_of
from MedAILib.gui.packages import NEEDED_TO_CLASSIFY
from MedAILib.gui.panel import ModelPanel
from MedAILib.gui.place_list import PlaceList
from MedAILib.gui.show import (
    set_overlay_opacity,
    show_image,
    show_overlay,
    show_plot,
    show_plot_and_table,
    show_table,
    write_at_edge,
)
from MedAILib.request import EXPLANATIONS
from MedAILib.runs.classify import ClassifyRun, ExplainRun
from MedAILib.runs.detect import DetectRun
from MedAILib.scene.classification import is_saliency
from MedAILib.scene.position import VIEWS, follow_views, place_on_plot, shown_slice, spots_of, voxel_axis
from MedAILib.scene.read import geometry_of, require_image, volume_from_nodes
from MedAILib.scene.results import has_result, image_of, result_of
from MedAILib.scene.sequences import sequence_shown_in, shown_in

WHOLE, ONE_SLICE, EACH_SLICE, REGION, SEGMENT, EACH_FRAME = PARTS = (
    "the whole image",
    "one slice",
    "each slice",
    "a region of interest",
    "a segment's region",
    "each frame of a sequence",
)
NO_EXPLANATION = "none"
# The attribute of a text node that says what stands at the lower edge of the slice views.
CORNER_ATTRIBUTE = "MedAI.corner"


class MedAIClassify(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        self.parent.title = _("MedAI Classify")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = []
        self.parent.contributors = ["MedAI contributors"]
        self.parent.helpText = _(
            "Says what an image, a volume, a slice, a region or a sequence shows, how sure the model is, and which "
            "voxels speak for the answer; or puts boxes around findings. It runs in a process of its own: the scene "
            "stays safe whatever happens to the model."
            "<p>Choose a model and an image, press Apply. The numbers are a table, the voxels a volume over the image. "
            "A map of voxels says what moved this network, not what a disease looks like.</p>"
            "<p><b>For research use only. Not a medical device.</b></p>"
        )
        self.parent.acknowledgementText = _("MedAI stands on MONAI, Captum, PyTorch and 3D Slicer.")


@parameterNodeWrapper
class MedAIClassifyParameterNode:
    """What the panel shows, as it is saved with the scene.

    `inputVolume2` and so on are the further channels of a model that wants several. `sliceIndex` is -1 for the slice
    that is shown; `segment` an ID, `className` empty for the class that is decided for; `leastScorePercent` -1 for the
    model's own.
    """

    model: str = ""
    inputVolume: vtkMRMLScalarVolumeNode
    inputVolume2: vtkMRMLScalarVolumeNode
    inputVolume3: vtkMRMLScalarVolumeNode
    inputVolume4: vtkMRMLScalarVolumeNode
    inputVolume5: vtkMRMLScalarVolumeNode
    inputVolume6: vtkMRMLScalarVolumeNode
    inputVolume7: vtkMRMLScalarVolumeNode
    inputVolume8: vtkMRMLScalarVolumeNode
    part: Annotated[str, Choice(list(PARTS))] = WHOLE
    view: Annotated[str, Choice(list(VIEWS))] = "axial"
    sliceIndex: Annotated[int, WithinRange(-1, 9999)] = -1
    roi: vtkMRMLMarkupsROINode
    segmentation: vtkMRMLSegmentationNode
    segment: str = ""
    covariatesTable: vtkMRMLTableNode
    covariatesRow: Annotated[int, WithinRange(1, 100000)] = 1
    covariates: str = ""
    method: Annotated[str, Choice([NO_EXPLANATION, *EXPLANATIONS])] = NO_EXPLANATION
    className: str = ""
    smallestML: Annotated[float, WithinRange(0.0, 10000.0)] = 0.0
    leastScorePercent: Annotated[int, WithinRange(-1, 100)] = -1
    device: str = "auto"
    table: bool = True
    text: bool = True
    plot: bool = True
    corner: bool = False
    opacityPercent: Annotated[int, WithinRange(0, 100)] = 50
    result: vtkMRMLTableNode


class MedAIClassifyWidget(ModelPanel):
    """The panel of classification and detection: what is looked at, and the answer before the user's eyes."""

    UI = "UI/MedAIClassify.ui"
    PACKAGES = NEEDED_TO_CLASSIFY

    def __init__(self, parent=None):
        self._cornerText = ""
        self._views = LinkedViews(lambda: follow_views(slicer.mrmlScene), place_on_plot)
        super().__init__(parent)

    def makeLogic(self):
        return MedAIClassifyLogic()

    def connectOwn(self):
        self._places = PlaceList(self.ui.resultList)
        self.ui.explainButton.connect("clicked(bool)", self.onExplainButton)
        self.ui.segmentComboBox.connect("currentIndexChanged(int)", self._onSegmentPicked)
        self.ui.classComboBox.connect("currentIndexChanged(int)", self._onClassPicked)
        self.ui.opacitySlider.connect("valueChanged(int)", self._onOpacityChanged)
        self.ui.saveReportButton.connect("clicked(bool)", self.onSaveReportButton)

    def initializeParameterNode(self):
        super().initializeParameterNode()
        if not self._parameterNode.model:
            first = next((model for model in self.logic.models() if model.spec and model.spec.classes), None)
            if first is not None:
                self._parameterNode.model = first.name
        self._views.follow()
        self._restoreCorner()

    def onSceneStartClose(self, caller, event):
        self._views.leaveSlices()
        super().onSceneStartClose(caller, event)
        self._writeInCorner("")

    def cleanup(self):
        super().cleanup()
        self._views.leave()

    # What the user does

    def onExplainButton(self):
        """Show the voxels that speak for the chosen class, of what is chosen now."""
        self._start(lambda: {**self.arguments(), "explainOnly": True})

    def onSaveReportButton(self):
        """Write the result that is listed into a file that the user names."""
        node = self._parameterNode.result
        with slicer.util.tryWithErrorDisplay(_("The report could not be saved.")):
            try:
                result_of(node)
                kinds = ";;".join(f"{text} (*{end})" for text, end in zip(_reportNames(), REPORT_ENDINGS, strict=True))
                chosen = qt.QFileDialog.getSaveFileName(
                    self.parent, _("Report of {name}").format(name=node.GetName()), f"{node.GetName()}.json", kinds
                )
                if chosen:
                    self.logic.saveReport(node, chosen)
                    self._messages.tell(_("Saved {path}.").format(path=chosen))
            except MedAIError as error:
                self._messages.show(error)

    def _onSegmentPicked(self, index):
        if self._parameterNode and index >= 0:
            self._parameterNode.segment = self.ui.segmentComboBox.itemData(index)

    def _onClassPicked(self, index):
        if self._parameterNode and index >= 0:
            self._parameterNode.className = self.ui.classComboBox.itemData(index)

    def _onOpacityChanged(self, percent):
        set_overlay_opacity(is_saliency, percent / 100)

    # A run

    def arguments(self) -> "dict[str, Any]":
        """What the panel says, as arguments of the logic; nodes by their ID."""
        parameters = self._parameterNode
        found: dict[str, Any] = {
            "volumeNode": [node.GetID() for node in self._inputNodes()],
            "model": parameters.model,
            "device": parameters.device,
        }
        if parameters.part == REGION:
            found["roiNode"] = id_of(parameters.roi)
        classes = self._classes()
        if classes is None:
            least = parameters.leastScorePercent
            return found | {
                "smallestML": parameters.smallestML,
                "scoreThreshold": None if least < 0 else least / 100,
            }
        if parameters.part in (ONE_SLICE, EACH_SLICE):
            found["slices"] = self._slices()
        if parameters.part == SEGMENT:
            found["segmentationNode"] = parameters.segmentation.GetID()
            found["segmentID"] = parameters.segment
        sequenceNode = self._sequenceNode()
        if sequenceNode is not None and (classes.sequence or parameters.part == EACH_FRAME):
            found["volumeNode"] = sequenceNode.GetID()
            found["eachFrame"] = not classes.sequence
        if classes.covariates:
            found["covariates"] = covariates_of(parameters.covariates)
            if is_there(parameters.covariatesTable):
                found["covariatesTable"] = parameters.covariatesTable.GetID()
                found["covariatesRow"] = parameters.covariatesRow - 1
        return found | {
            "method": None if parameters.method == NO_EXPLANATION else parameters.method,
            "className": parameters.className or None,
            "table": parameters.table,
            "text": parameters.text,
            "plot": parameters.plot,
        }

    def begin(self, arguments, **listeners) -> FollowedRun | None:
        options = dict(arguments)
        explainOnly = options.pop("explainOnly", False)
        if self._classes() is None:
            return self.logic.detectAsync(**options, **listeners)
        if self._asksForSlices(options):
            with nobody_waits():
                way = choose(
                    _("This model takes single pictures, and the image is a volume. Which of its slices?"),
                    [_("The slice shown"), _("Each slice")],
                    _("Don't run"),
                    _("MedAI: before the run"),
                )
            if way is None:
                return None
            options["slices"] = self._slices(each=way == 1)
        if explainOnly:
            for name in ("table", "text", "plot"):
                options.pop(name)
            options["method"] = options["method"] or EXPLANATIONS[0]
            return self.logic.explainAsync(**options, **listeners)
        return self.logic.classifyAsync(**options, **listeners)

    def showResults(self, nodes):
        parameters = self.logic.getParameterNode()  # also where the user has left the panel meanwhile
        byClass: dict[str, list[Any]] = {}
        for node in nodes:
            byClass.setdefault(node.GetClassName(), []).append(node)
        volumeNode = self._imageOfRun()
        saliencyNode = next((node for node in nodes if is_saliency(node)), None)
        if saliencyNode is not None:
            show_overlay(volumeNode, saliencyNode, parameters.opacityPercent / 100)
        else:
            show_image(volumeNode)
        tableNode = next((node for node in byClass.get("vtkMRMLTableNode", []) if spots_of(node)), None)
        charts = byClass.get("vtkMRMLPlotChartNode", [])
        if tableNode is not None:
            parameters.result = tableNode
        if charts and tableNode is not None:
            show_plot_and_table(charts[0], tableNode)
        elif charts:
            show_plot(charts[0])
        elif tableNode is not None:
            show_table(tableNode)
        self._views.follow()
        self._messages.say(self._summary(nodes, tableNode, saliencyNode))
        self._messages.log(_("Done: {names}").format(names=", ".join(node.GetName() for node in nodes)))
        for textNode in byClass.get("vtkMRMLTextNode", []):
            self._messages.log(textNode.GetText())
            if parameters.corner:
                textNode.SetAttribute(CORNER_ATTRIBUTE, textNode.GetText().split("\n")[1])
        self._restoreCorner()

    def _imageOfRun(self):
        """The image that the last run was on; another one may be chosen by now."""
        ids = (self._lastArguments or {})["volumeNode"]
        node = slicer.mrmlScene.GetNodeByID(ids if isinstance(ids, str) else ids[0])
        return shown_in(node) if node.IsA("vtkMRMLSequenceNode") else node

    def _summary(self, nodes, tableNode, saliencyNode) -> str:
        if tableNode is not None:
            spots = spots_of(tableNode)
            return (
                spots[0].text
                if len(spots) == 1
                else _("Done: {count} rows in {name}.").format(count=len(spots), name=tableNode.GetName())
            )
        if saliencyNode is not None:
            return _("Done: {name} is shown over the image.").format(name=saliencyNode.GetName())
        if self._classes() is None:
            return _("Done, but nothing was found. Does the image show what the model is for?")
        return _("Done: {names}").format(names=", ".join(node.GetName() for node in nodes))

    # What the panel shows

    def inputNames(self, spec):
        """A picture in colour is one image, though it has three channels."""
        if spec.classes is not None and spec.classes.dimensions == 2 and len(spec.channels) == 3:
            return (_("Picture"),)
        return spec.channels

    def inputsDependOn(self):
        parameters, classes = self._parameterNode, self._classes()
        return parameters.part, classes, self._modelName(), self._sequenceNode() is not None

    def showInputs(self):
        ui, classes, part = self.ui, self._classes(), self._parameterNode.part
        self._show_rows(part in (ONE_SLICE, EACH_SLICE) or self._pictures(), ui.viewLabel, ui.viewComboBox)
        self._show_rows(part == ONE_SLICE, ui.sliceIndexLabel, ui.sliceIndexSpinBox)
        self._show_rows(part == REGION, ui.roiLabel, ui.roiSelector)
        segment = (ui.segmentationLabel, ui.segmentationSelector, ui.segmentLabel, ui.segmentComboBox)
        self._show_rows(part == SEGMENT, *segment)
        wants = classes is not None and bool(classes.covariates)
        typed = (ui.covariatesLabel, ui.covariatesLineEdit, ui.covariatesTableLabel, ui.covariatesTableSelector)
        self._show_rows(wants, *typed, ui.covariatesRowLabel, ui.covariatesRowSpinBox)
        if wants:
            ui.covariatesLineEdit.placeholderText = ", ".join(f"{x.name}=…" for x in classes.covariates)
        ui.explanationCollapsibleButton.visible = classes is not None
        boxes = (ui.smallestLabel, ui.smallestSpinBox, ui.leastScoreLabel, ui.leastScoreSpinBox)
        self._show_rows(classes is None, *boxes)
        for box in (ui.tableCheckBox, ui.textCheckBox, ui.plotCheckBox, ui.cornerCheckBox):
            box.visible = classes is not None

    def ownHindrance(self):
        parameters, classes = self._parameterNode, self._classes()
        if parameters.part == REGION and not is_there(parameters.roi):
            return _("Choose a region of interest.")
        if classes is None:
            if parameters.part in (ONE_SLICE, EACH_SLICE, SEGMENT, EACH_FRAME):
                return _("This model finds things in the whole image or in a region of interest; choose one of these.")
            return ""
        if parameters.part == SEGMENT and not (is_there(parameters.segmentation) and parameters.segment):
            return _("Choose a segmentation and one of its segments.")
        if parameters.part == EACH_FRAME and self._sequenceNode() is None:
            return _("The image is not shown from a sequence; choose one that is.")
        return ""

    def updateOwn(self, running):
        if self._parameterNode is None:
            self.ui.explainButton.enabled = self.ui.saveReportButton.enabled = False
            return
        self._fillClasses()
        self._fillSegments()
        self._showSpots()
        result = self._parameterNode.result
        self.ui.saveReportButton.enabled = is_there(result) and has_result(result)
        self.ui.explainButton.enabled = bool(self.ui.applyButton.enabled) and self._classes() is not None

    def _classes(self):
        """What the chosen model decides between; None for one that finds things."""
        spec = self._spec()
        return spec.classes if spec is not None else None

    def _pictures(self) -> bool:
        classes = self._classes()
        return classes is not None and classes.dimensions == 2

    def _sequenceNode(self):
        """The sequence that the first image is shown from; else None."""
        node = self._parameterNode.inputVolume
        return sequence_shown_in(node) if is_there(node) else None

    def _slices(self, each=None):
        """The slice that was chosen or is shown, or each of them, as an argument of the logic."""
        parameters, node = self._parameterNode, self._parameterNode.inputVolume
        require_image(node)
        axis = voxel_axis(geometry_of(node), parameters.view)
        if each if each is not None else parameters.part == EACH_SLICE:
            return axis
        index = parameters.sliceIndex if each is None else -1
        shown = shown_slice(node, axis) if index < 0 else index
        if shown is None:
            raise InputError(f"No slice view shows {node.GetName()}; say which slice is meant.")
        return axis, shown

    def _asksForSlices(self, arguments) -> bool:
        """Whether a model of pictures is given a volume, and nothing says which of its slices."""
        classes, node = self._classes(), self._parameterNode.inputVolume
        if arguments.get("slices") is not None or isinstance(arguments["volumeNode"], str) or not is_there(node):
            return False
        require_image(node)
        return classes.dimensions == 2 and not classes.sequence and 1 not in geometry_of(node).shape_kji

    def _fillClasses(self):
        classes, combo = self._classes(), self.ui.classComboBox
        names = classes.names if classes is not None else ()
        offer(combo, [(_("The one decided for"), ""), *((name, name) for name in names)])
        if self._parameterNode.className not in ("", *names):
            self._parameterNode.className = ""
        combo.currentIndex = max(combo.findData(self._parameterNode.className), 0)

    def _fillSegments(self):
        node, combo = self._parameterNode.segmentation, self.ui.segmentComboBox
        segmentation = node.GetSegmentation() if is_there(node) else None
        ids = [] if segmentation is None else list(segmentation.GetSegmentIDs())
        offer(combo, [] if segmentation is None else [(segmentation.GetSegment(x).GetName(), x) for x in ids])
        if ids and self._parameterNode.segment not in ids:
            self._parameterNode.segment = ids[0]
        combo.currentIndex = combo.findData(self._parameterNode.segment)

    def _showSpots(self):
        """The rows of the chosen result."""
        node = self._parameterNode.result
        self._places.show(spots_of(node) if is_there(node) and node.GetTable() is not None else [])

    def _restoreCorner(self):
        """What the last result with a note for the slice views says, while the panel asks for it."""
        notes = [node.GetAttribute(CORNER_ATTRIBUTE) for node in slicer.util.getNodesByClass("vtkMRMLTextNode")]
        known = [note for note in notes if note]
        self._writeInCorner(known[-1] if known and self.logic.getParameterNode().corner else "")

    def _writeInCorner(self, text):
        """Write into the slice views, and take back no more than what was written here."""
        if text != self._cornerText:
            self._cornerText = text
            write_at_edge(text)

    @staticmethod
    def _show_rows(shown, *widgets):
        for widget in widgets:
            widget.visible = shown


class MedAIClassifyLogic(ModelLogic):
    """Takes nodes to the worker and its answers to the scene; needs no panel.

    Args:
        client: runs the models; None takes the worker that all of MedAI's modules share.

    Example::

        logic = slicer.util.getModuleLogic("MedAIClassify")
        tableNode, textNode = logic.classify(volumeNode, model="breast_ultrasound")
        saliencyNode = logic.explain(volumeNode, model="breast_ultrasound", className="malignant")[0]
        tableNode, *roiNodes = logic.detect(volumeNode, model="hippocampus")
        logic.saveReport(tableNode, "findings.dcm")
    """

    TASKS = ("classification", "detection", "segmentation")

    def getParameterNode(self):
        return self.wrapped(MedAIClassifyParameterNode)

    def classify(self, volumeNode, model, device="auto", **options):
        """Say what an image shows, and wait for the answer.

        Args:
            volumeNode: a scalar or vector volume node or its ID, a list of them (one per channel in the model's order),
                or a sequence of volumes.
            model: a model's name, or the path of a bundle.
            device: "auto", "cpu", "cuda" or "cuda:1".
            options: what is looked at: `slices`, ("K", 12) for one slice across a voxel axis or "K" for each;
                `roiNode`, a markups ROI node or its ID; `segmentationNode` and `segmentID`, whose box is looked at;
                `eachFrame`, to classify each frame of a sequence by itself. Numbers beside the image: `covariates`, a
                dict, and `covariatesTable` with `covariatesRow` (from 0), where the dict has precedence. Explanation:
                `method`, one of `request.EXPLANATIONS`, and `className`, None for the class decided for. Nodes to
                make: `table`, `text`, `plot` (all True).

        Returns:
            The new nodes: table, text, those of the plot, the saliency's colours and volume, as far as there are.

        Raises:
            MedAIError: the input, an option or the model is at fault, or the worker was lost; or the image was
                removed in the meantime. Nothing has been added to the scene then.
        """
        return self._runToEnd(ClassifyRun(volumeNode, model, device, **options))

    def classifyAsync(self, volumeNode, model, device="auto", **options) -> FollowedRun | None:
        """Begin to classify, and return at once.

        Args:
            volumeNode: as for `classify`.
            model: as for `classify`.
            device: as for `classify`.
            options: as for `classify`, and who is told. `onDone` (print) is called with the new nodes once they are in
                the scene; `onError` with what went wrong, None writes it to the log; `onProgress` with each new state;
                `onWarnings` before the run with what speaks against it, if anything does: it returns whether to run
                all the same, and None writes it to the log, and runs.

        Returns:
            The run: `poll()` says how it stands, `cancel()` stops it. None where `onWarnings` was against it.

        Raises:
            MedAIError: the input or an option is at fault.
        """
        return self._begin(ClassifyRun, volumeNode, model, device, **options)

    def explain(self, volumeNode, model, className=None, method="grad-cam", device="auto", **options):
        """Show which voxels speak for a class, and wait for it; nothing but the map is added.

        Args:
            volumeNode: as for `classify`.
            model: as for `classify`.
            className: the class; None for the one decided for.
            method: one of `request.EXPLANATIONS`.
            device: as for `classify`.
            options: what is looked at, and covariates, as for `classify`.

        Returns:
            The saliency's volume node, then its colour node.

        Raises:
            MedAIError: as `classify`.
        """
        return self._runToEnd(ExplainRun(volumeNode, model, device, className=className, method=method, **options))

    def explainAsync(
        self, volumeNode, model, className=None, method="grad-cam", device="auto", **options
    ) -> FollowedRun | None:
        """Begin to explain, and return at once; arguments as for `explain`, who is told as for `classifyAsync`."""
        return self._begin(ExplainRun, volumeNode, model, device, className=className, method=method, **options)

    def detect(self, volumeNode, model, device="auto", **options):
        """Put boxes around findings, and wait for them; the model detects, or it segments.

        Args:
            volumeNode: a volume node or its ID, or a list of them.
            model: a model's name, or the path of a bundle.
            device: as for `classify`.
            options: `roiNode`, inside of whose box alone is looked; `smallestML`, the least volume of a finding;
                `scoreThreshold` and `overlapLimit`, 0 to 1, None for the model's own.

        Returns:
            The table node, then a markups ROI node for each finding, the surest first.

        Raises:
            MedAIError: as `classify`.
        """
        return self._runToEnd(DetectRun(volumeNode, model, device, **options))

    def detectAsync(self, volumeNode, model, device="auto", **options) -> FollowedRun | None:
        """Begin to look for findings, and return at once; arguments as for `detect`, who is told as `classifyAsync`."""
        return self._begin(DetectRun, volumeNode, model, device, **options)

    def saveReport(self, tableNode, path):
        """Write a result as a file: `.json`, `.csv`, or `.dcm` for a DICOM structured report (TID 1500).

        A report refers to the DICOM files of the image, which Slicer's DICOM database knows; it takes its patient and
        study from them.

        Args:
            tableNode: the table that `classify` or `detect` made, also in an earlier session; or its ID.
            path: the file.

        Returns:
            The path.

        Raises:
            MedAIError: no table of a result, another ending, an image that is not from DICOM or whose files are gone,
                or the file can't be written. No file is left half written.
        """
        tableNode, path = node_of(tableNode, _("table")), Path(path)
        result, volume = result_of(tableNode), None
        if path.suffix.lower() == ".dcm":
            require_highdicom()
            from MedAILib.files.dicom_sources import sources_of  # noqa: PLC0415  pydicom takes a while

            volume = volume_from_nodes([image_of(tableNode)])
            files = dicom_files(volume.name, volume.provenance.get("SOPInstanceUIDs", ""))
            sources = sources_of(files, volume.geometry, volume.name)
            volume = replace(volume, provenance=volume.provenance | sources)
        write_report(result, path, volume)
        return path


def _reportNames() -> "tuple[str, ...]":
    """What the kinds of `REPORT_ENDINGS` are called."""
    return _("JSON"), _("Table for spreadsheets"), _("DICOM structured report")


class MedAIClassifyTest(ModuleTest):
    """Runs inside of Slicer: Reload and Test in developer mode, or ctest after a build."""

    def test_findingsLieOnTheirVolume(self):
        """The built-in segmentation model gives boxes, a region node for each row of their table."""
        self.delayDisplay("Looking for findings with the built-in model")
        volumeNode, logic = self.addRamp(), MedAIClassifyLogic()
        self.addCleanup(logic.close)
        tableNode, *roiNodes = logic.detect(volumeNode, model="hippocampus", device="cpu")
        self.assertEqual(tableNode.GetTable().GetNumberOfRows(), len(roiNodes))
        self.assertIsNotNone(tableNode.GetAttribute("MedAI.sha256"))
        self.delayDisplay("Test passed")
