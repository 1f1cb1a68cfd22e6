"""MedAISegment in Slicer: the module, its panel and its logic, which joins the scene to the worker.

The work is done in MedAILib; this process never imports PyTorch.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

# Installed, MedAILib stands beside this file; in a source tree one folder up, where Slicer does not look.
SOURCE_TREE = Path(__file__).resolve().parents[1]
if (SOURCE_TREE / "MedAILib").is_dir() and str(SOURCE_TREE) not in sys.path:
    sys.path.append(str(SOURCE_TREE))

from MedAILib.progress import Progress
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Segmentation
from MedAILib.scene.into import require_segmentation
from MedAILib.scene.origin import find_origin, origin_of
from MedAILib.scene.read import roi_from_node, volume_from_nodes
from MedAILib.scene.sequences import SequenceRun
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Volume
from MedAILib.worker.client import WorkerClient


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
            "<p><b>For research use only. Not a medical device.</b></p>"
        )
        self.parent.acknowledgementText = _(
            "The built-in hippocampus model was trained on Task04 of the Medical Segmentation Decathlon "
            "(CC BY-SA 4.0). MedAI stands on MONAI, PyTorch and 3D Slicer."
        )


class MedAISegmentWidget(ScriptedLoadableModuleWidget):
    """The panel. It holds the logic that `slicer.util.getModuleLogic` gives, and says how to call it."""

    def __init__(self, parent=None):
        self.logic = None  # first, since the base class may call setup
        super().__init__(parent)

    def setup(self):
        super().setup()
        self.logic = MedAISegmentLogic()
        label = qt.QLabel(
            _(
                "Call it from the Python console:\n\n"
                'logic = slicer.util.getModuleLogic("MedAISegment")\n'
                'nodes = logic.segment(slicer.util.getNode("MyVolume"), model="hippocampus")\n\n'
                "For research use only. Not a medical device."
            )
        )
        label.wordWrap = True
        label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.layout.addWidget(label)
        self.layout.addStretch(1)

    def cleanup(self):
        """End the worker when the panel goes: Slicer closes, or the module is reloaded."""
        if self.logic is not None:
            self.logic.close()

    def onReload(self):
        """Reload the library with the module file; Slicer by itself reloads the file alone."""
        self.cleanup()
        for name in [name for name in sys.modules if name.split(".")[0] == "MedAILib"]:
            del sys.modules[name]
        super().onReload()


class MedAISegmentLogic(ScriptedLoadableModuleLogic):
    """Takes nodes to the worker and its results to the scene; needs no panel.

    The worker starts with the first run and stays warm until `close`.

    Args:
        client: runs the models; None makes one for this logic when it is first needed.

    Example::

        logic = slicer.util.getModuleLogic("MedAISegment")
        segmentationNode = logic.segment(volumeNode, model="hippocampus")[0]
    """

    def __init__(self, client: WorkerClient | None = None):
        super().__init__()
        self._client = client

    def segment(
        self,
        volumeNode,
        model="hippocampus",
        device="auto",
        *,
        roiNode=None,
        probabilities=False,
        labelMap=False,
        surfaces=False,
        table=True,
        mirror=False,
        segmentationNode=None,
    ):
        """Segment an image and wait for the result.

        Args:
            volumeNode: a scalar volume node, or a list of them, one per channel in the model's order; the others are
                put on the first one's grid.
            model: a model's name, or the path of a bundle.
            device: "auto", "cpu", "cuda" or "cuda:1".
            roiNode: a markups ROI node; the model runs inside of its box alone.
            probabilities: also make a volume node of each class's probability.
            labelMap: also make a label map volume node.
            surfaces: also make the segments' surfaces, for the 3D views.
            table: also make a table node: voxels, volume and intensities of each segment.
            mirror: average over mirrored copies, as the model allows; slower, often a little better.
            segmentationNode: takes the new segments, beside those that it has; None makes a new one.

        Returns:
            The new nodes, the segmentation node first.

        Raises:
            MedAIError: the input, an option or the model is at fault, or the worker was lost; or the image was
                removed in the meantime. Nothing has been added to the scene then.
        """
        nodes = list(volumeNode) if isinstance(volumeNode, Sequence) else [volumeNode]
        volume = volume_from_nodes(nodes)
        roi = None if roiNode is None else roi_from_node(roiNode, nodes[0])
        request = RunRequest(model, device, RunOptions(roi=roi, probabilities=probabilities, mirror=mirror))
        into = None if segmentationNode is None else segmentationNode.GetID()
        outputs = Outputs(label_map=labelMap, probabilities=probabilities, surfaces=surfaces, table=table, into=into)

        # Nodes may go while the worker computes: between asking and writing, what is remembered stands for them.
        scene, origin = nodes[0].GetScene(), origin_of(nodes[0])
        if into is not None:
            require_segmentation(scene, into, nodes[0])
        del nodes, volumeNode, segmentationNode
        result = self._run(request, volume)
        return write_result(result, find_origin(scene, origin), outputs)

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
        frames = SequenceRun(sequenceNode, outputs)
        roi = None if roiNode is None else roi_from_node(roiNode, frames.shown_volume())
        request = RunRequest(model, device, RunOptions(roi=roi, mirror=mirror))
        return frames.run(lambda volume: self._run(request, volume), progress or Progress())

    def close(self):
        """End the worker; the next run starts a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _run(self, request: RunRequest, volume: Volume) -> Segmentation:
        if self._client is None:
            self._client = WorkerClient()
        job = self._client.submit(request, volume)
        try:
            result = job.result()
            for text in job.poll().warnings:
                logging.warning(text)
            return result
        finally:
            job.cancel()  # for who interrupts the waiting; a run that has ended takes no notice


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
