"""Runs that look for findings in an image: from the console's options to nodes."""

from typing import Any

from slicer.i18n import tr as _

from MedAILib.detections import Detections
from MedAILib.errors import InputError
from MedAILib.gui.follow import Arrival
from MedAILib.request import DetectOptions, RunRequest
from MedAILib.runs.image import ImageRun, is_sequence, region_of
from MedAILib.scene.detections import write_detections
from MedAILib.volume import Volume
from MedAILib.worker.client import JobState


class DetectRun(ImageRun):
    """A search for findings in one image.

    Args:
        volumeNode: see `ImageRun`.
        model: a model's name or path.
        device: "auto", "cpu", "cuda" or "cuda:1".
        trustCode: the SHA-256 of a model that the user allows to execute code of its own.

    The other arguments are the options of `MedAIClassifyLogic.detect`, which says what they mean.

    Raises:
        MedAIError: a node or an option is at fault.
    """

    def __init__(
        self,
        volumeNode: Any,
        model: str,
        device: str,
        *,
        roiNode: Any = None,
        smallestML: float = 0.0,
        scoreThreshold: float | None = None,
        overlapLimit: float | None = None,
        trustCode: str = "",
    ):
        super().__init__(volumeNode)
        options = DetectOptions(region_of(roiNode, self._source), smallestML, scoreThreshold, overlapLimit)
        self.request = RunRequest(model, device, options, trustCode)

    def _read(self, nodes: "list[Any]") -> "tuple[Any, Volume]":
        if len(nodes) == 1 and is_sequence(nodes[0]):
            raise InputError("Findings are looked for in single images; choose a frame of the sequence.")
        return super()._read(nodes)

    def arrive(self, result: Detections) -> Arrival:
        """Put the findings into the scene; returns the new nodes, the table first.

        Raises:
            MedAIError: there is no place for them any more.
        """
        yield JobState("running", _("Placing the results"))
        return write_detections(result, self._place())
