"""What the runs of all of MedAI's modules share: one image out of the scene, and its place found again at the end."""

from typing import Any

import slicer
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.gui.nodes import node_of, nodes_of
from MedAILib.request import RunRequest
from MedAILib.scene.origin import find_origin, origin_of
from MedAILib.scene.read import roi_from_node, volume_from_nodes
from MedAILib.volume import Roi, Volume
from MedAILib.worker.client import Job, WorkerClient


class ImageRun:
    """What a run on one image needs of the scene: read at its beginning, found again at its end.

    A run of its own kind sets `request` and says by `arrive` what becomes of the result (see `gui.logic.SceneRun`).
    Nodes are not kept while the worker computes.

    Args:
        volumeNode: a volume node or its ID, or a list of them, one for each channel.

    Raises:
        MedAIError: what is given is no image.
    """

    request: RunRequest
    images = 1

    def __init__(self, volumeNode: Any):
        self._source: Any
        self._volume: Volume | None
        self._source, self._volume = self._read(nodes_of(volumeNode, _("image")))
        self._scene = self._source.GetScene()

    def _read(self, nodes: "list[Any]") -> "tuple[Any, Volume]":
        """The node that the result will belong to, which is remembered, and its image."""
        volume = volume_from_nodes(nodes)
        self._origin = origin_of(nodes[0])
        return nodes[0], volume

    @property
    def volume(self) -> Volume:
        """The image, until it is submitted."""
        assert self._volume is not None
        return self._volume

    def submit(self, client: WorkerClient) -> Job:
        """Hand the image over; the job lets it go when it ends."""
        self._source = None
        volume, self._volume = self.volume, None
        return client.submit(self.request, volume)

    def obstacle(self) -> MedAIError | None:
        """Why the result has no place any more."""
        try:
            self._place()
        except MedAIError as error:
            return error
        return None

    def _place(self) -> Any:
        """The node that the result belongs to.

        Raises:
            MedAIError: there is no place for it any more.
        """
        return find_origin(self._scene, self._origin)


def is_sequence(node: Any) -> bool:
    """Whether a node is a sequence, or the browser of one."""
    return isinstance(node, slicer.vtkMRMLSequenceNode | slicer.vtkMRMLSequenceBrowserNode)


def region_of(roiNode: Any, volumeNode: Any) -> Roi | None:
    """The box of a region of interest, a markups ROI node or its ID, as it lies to an image; None for none.

    Raises:
        MedAIError: it is no such node any more.
    """
    return None if roiNode is None else roi_from_node(node_of(roiNode, _("region of interest")), volumeNode)
