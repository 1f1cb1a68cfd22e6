"""Runs that segment: an image, or every frame of a sequence, from the console's options to nodes."""

from dataclasses import dataclass, replace
from typing import Any

from slicer.i18n import tr as _

from MedAILib.errors import InputError, MedAIError
from MedAILib.gui.follow import Arrival
from MedAILib.gui.frames import FrameJobs
from MedAILib.gui.nodes import node_of
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Segmentation
from MedAILib.runs.image import ImageRun, region_of
from MedAILib.scene.into import require_segmentation
from MedAILib.scene.sequence_results import SequenceOutputs
from MedAILib.scene.sequences import SequenceRun
from MedAILib.scene.surfaces import add_surfaces
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Volume
from MedAILib.worker.client import Job, JobState, WorkerClient


@dataclass(frozen=True)
class SegmentOptions:
    """The options of `MedAISegmentLogic.segment` that images and sequences have in common; it says what they mean."""

    roiNode: Any = None
    labelMap: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    surfaces: bool = False
    table: bool = True
    mirror: bool = False
    overlap: float | None = None
    precision: str = "auto"
    postprocess: bool = True
    trustCode: str = ""

    def request(self, model: str, device: str, volumeNode: Any, *, statistics: bool = False) -> RunRequest:
        """What the worker is asked; `volumeNode` is only looked at where there is a region of interest."""
        options = RunOptions(
            region_of(self.roiNode, volumeNode),
            self.probabilities,
            self.mirror,
            self.postprocess,
            self.overlap,
            self.uncertainty,
            self.precision,
        )
        return RunRequest(model, device, options, self.trustCode, statistics)


class SegmentRun(ImageRun):
    """A segmentation of one image.

    Args:
        volumeNode: see `ImageRun`.
        model: a model's name or path.
        device: "auto", "cpu", "cuda" or "cuda:1".
        segmentationNode: takes the new segments; None makes a new one.
        options: see `SegmentOptions`.

    Raises:
        MedAIError: a node or an option is at fault.
    """

    def __init__(self, volumeNode: Any, model: str, device: str, *, segmentationNode: Any = None, **options: Any):
        super().__init__(volumeNode)
        wanted = SegmentOptions(**options)
        self.request = wanted.request(model, device, self._source, statistics=True)
        self._outputs = Outputs(
            label_map=wanted.labelMap,
            probabilities=wanted.probabilities,
            table=wanted.table,
            into=None if segmentationNode is None else node_of(segmentationNode, _("segmentation")).GetID(),
            uncertainty=wanted.uncertainty,
        )
        self._surfaces = wanted.surfaces
        self._job: Job | None = None
        self._place()  # what has no place now is refused before the worker has computed it

    def submit(self, client: WorkerClient) -> Job:
        """Hand the image over; the job lets it go when it ends."""
        self._job = super().submit(client)
        return self._job

    def _place(self) -> Any:
        source = super()._place()
        if self._outputs.into is not None:
            require_segmentation(self._scene, self._outputs.into, source)
        return source

    def arrive(self, result: Segmentation) -> Arrival:
        """Put the result into the scene, in steps; returns the new nodes, the segmentation first.

        Raises:
            MedAIError: there is no place for it any more.
        """
        statistics = None if self._job is None else self._job.statistics
        nodes = write_result(result, self._place(), self._outputs, statistics=statistics)
        ids = [node.GetID() for node in nodes]
        if self._surfaces:
            for done, total in add_surfaces(nodes[0]):
                yield JobState("running", _("Surfaces"), done, total)
                if self._scene.GetNodeByID(ids[0]) is None:
                    raise InputError("The segmentation was removed from the scene before it was complete.")
        return [node for node in map(self._scene.GetNodeByID, ids) if node is not None]


class FramesRun:
    """A segmentation of every frame of a sequence, one after the other.

    Args:
        sequenceNode: a sequence node of volumes, a browser node of one, or an ID of these.
        model: a model's name or path.
        device: "auto", "cpu", "cuda" or "cuda:1".
        outputs: which nodes to make; None takes it from the options.
        options: see `SegmentOptions`.

    Raises:
        MedAIError: a node or an option is at fault.
    """

    def __init__(
        self, sequenceNode: Any, model: str, device: str, *, outputs: SequenceOutputs | None = None, **options: Any
    ):
        wanted = SegmentOptions(**options)
        if outputs is None:
            outputs = SequenceOutputs(
                label_maps=wanted.labelMap,
                table=wanted.table,
                plot=wanted.table,
                probabilities=wanted.probabilities,
                uncertainty=wanted.uncertainty,
                surfaces=wanted.surfaces,
            )
        wanted = replace(wanted, probabilities=outputs.probabilities, uncertainty=outputs.uncertainty)
        self.frames = SequenceRun(node_of(sequenceNode, _("sequence")), outputs)
        shownNode = None if wanted.roiNode is None else self.frames.shown_volume()
        self.request = wanted.request(model, device, shownNode)

    @property
    def images(self) -> int:
        """How many frames there are."""
        return self.frames.count

    @property
    def volume(self) -> Volume:
        """The image of the next frame."""
        with self.frames.naming():
            return self.frames.volume()

    def submit(self, client: WorkerClient) -> FrameJobs:
        """Hand the first frame over, and the others as their turn comes."""
        return FrameJobs(self.frames, lambda volume: client.submit(self.request, volume))

    def obstacle(self) -> MedAIError | None:
        """Why the results have no place any more."""
        try:
            self.frames.check()
        except MedAIError as error:
            return error
        return None

    def arrive(self, frames: SequenceRun) -> Arrival:
        """Put all results into the scene at once; returns the new nodes, the sequence of segmentations first.

        Raises:
            MedAIError: there is no place for them any more.
        """
        yield JobState("running", _("Placing the results"))
        return frames.finish()
