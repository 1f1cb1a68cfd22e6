"""Runs that say what an image shows, and which of its voxels speak for that: from the console's options to nodes."""

from typing import Any

from slicer.i18n import tr as _

from MedAILib.errors import InputError
from MedAILib.gui.follow import Arrival
from MedAILib.gui.nodes import node_of
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, Explain, RunRequest, Slices
from MedAILib.results import Classification
from MedAILib.runs.image import ImageRun, is_sequence, region_of
from MedAILib.scene.classification import ClassificationOutputs, write_classification
from MedAILib.scene.classification_inputs import box_of_segment, covariates_from_table, frames_from_sequence
from MedAILib.scene.sequences import SequenceRun, sequence_shown_in
from MedAILib.store.find import find_model
from MedAILib.volume import Volume
from MedAILib.worker.client import JobState


class ClassifyRun(ImageRun):
    """A classification of an image, or of all frames of a sequence.

    Args:
        volumeNode: see `ImageRun`; also a sequence node of volumes, or a browser node of one.
        model: a model's name or path.
        device: "auto", "cpu", "cuda" or "cuda:1".
        note: leave the decision as an attribute on the image.
        trustCode: the SHA-256 of a model that the user allows to execute code of its own.

    The other arguments are the options of `MedAIClassifyLogic.classify`, which says what they mean.

    Raises:
        MedAIError: a node or an option is at fault.
    """

    _frames: SequenceRun | None = None

    def __init__(
        self,
        volumeNode: Any,
        model: str,
        device: str,
        *,
        slices: Any = None,
        roiNode: Any = None,
        segmentationNode: Any = None,
        segmentID: str | None = None,
        eachFrame: bool = False,
        covariates: "dict[str, float] | None" = None,
        covariatesTable: Any = None,
        covariatesRow: int = 0,
        method: str | None = None,
        className: str | None = None,
        table: bool = True,
        text: bool = True,
        plot: bool = True,
        note: bool = True,
        trustCode: str = "",
    ):
        super().__init__(volumeNode)
        numbers = dict(covariates or {})
        if covariatesTable is not None:
            wanted = [x for x in _covariates_of_model(model) if x not in numbers]
            numbers |= covariates_from_table(node_of(covariatesTable, _("table")), wanted, covariatesRow)
        box = None
        if segmentationNode is not None:
            if not segmentID:
                raise InputError("A segmentation was given, but not which of its segments; give segmentID too.")
            box = box_of_segment(node_of(segmentationNode, _("segmentation")), segmentID, self._source)
        options = ClassifyOptions(
            roi=region_of(roiNode, self._source),
            box_kji=box,
            slices=_slices_of(slices),
            each_frame=eachFrame,
            covariates=numbers,
            explain=Explain(method, className) if method else None,
        )
        self.request = RunRequest(model, device, options, trustCode)
        self._outputs = ClassificationOutputs(table, text, plot, note)

    def _read(self, nodes: "list[Any]") -> "tuple[Any, Volume]":
        if len(nodes) != 1 or not is_sequence(nodes[0]):
            return super()._read(nodes)
        self._frames = SequenceRun(nodes[0])
        shownNode = self._frames.shown_volume()
        return shownNode, frames_from_sequence(sequence_shown_in(shownNode))

    def _place(self) -> Any:
        if self._frames is None:
            return super()._place()
        self._frames.check()
        return self._frames.shown_volume()

    def arrive(self, result: Classification) -> Arrival:
        """Put the answer into the scene; returns the new nodes.

        Raises:
            MedAIError: there is no place for it any more.
        """
        yield JobState("running", _("Placing the results"))
        return write_classification(result, self._place(), outputs=self._outputs)


class ExplainRun(ClassifyRun):
    """The map of a classification alone: its volume, then its colours."""

    def __init__(self, volumeNode: Any, model: str, device: str, **options: Any):
        super().__init__(volumeNode, model, device, table=False, text=False, plot=False, note=False, **options)

    def arrive(self, result: Classification) -> Arrival:
        nodes = yield from super().arrive(result)
        return nodes[::-1]


def _slices_of(slices: Any) -> Slices | None:
    """("K", 12) is one slice, "K" each of them."""
    if slices is None:
        return None
    return Slices(slices) if isinstance(slices, str) else Slices(*slices)


def _covariates_of_model(model: str) -> "list[str]":
    classes = read_spec(find_model(model)).classes
    return [covariate.name for covariate in classes.covariates] if classes is not None else []
