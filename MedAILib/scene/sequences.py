"""A sequence of volumes, frame by frame through a model, to results in step with it; playback is never driven."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import slicer
import vtk

from MedAILib.errors import InputError, MedAIError
from MedAILib.progress import Progress
from MedAILib.results import Segmentation
from MedAILib.scene.origin import Origin, find_origin, origin_of
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.sequence_results import FrameResults, SequenceOutputs
from MedAILib.scene.write import all_or_nothing
from MedAILib.volume import Geometry, Volume


class SequenceRun:
    """One run over the frames of a sequence: images out one by one, results in, and at the end nodes in the scene.

    Until `finish` nothing is in the scene, so that a run is given up by letting go of this. No node of the scene is
    held in between: the user may delete, rename and move them, and play the sequence.

    Args:
        node: a sequence node of scalar volumes, or a browser node of one.
        outputs: which nodes to make; None makes segmentations, table and plot.
        name: what the nodes' names begin with; None takes the sequence's name and the model's.

    Raises:
        InputError: no such node, or a sequence without volumes; the text names the frame.

    Example::

        nodes = SequenceRun(sequenceNode).run(lambda volume: model.run(volume, options, progress), progress)

    or, where the caller must not wait::

        frames = SequenceRun(sequenceNode)
        while frames.done < frames.count:
            with frames.naming():
                frames.add(model.run(frames.volume(), options, progress))
        nodes = frames.finish()
    """

    def __init__(
        self, node: "slicer.vtkMRMLNode", outputs: SequenceOutputs | None = None, name: str | None = None
    ) -> None:
        sequence, browser = _sequence_and_browser(node)
        self._outputs, self._name = outputs or SequenceOutputs(), name
        self._scene = sequence.GetScene()
        self._sequence_id, self._sequence_name = sequence.GetID(), sequence.GetName()
        self._browser_id = browser.GetID() if browser is not None else None
        self._index = sequence.GetIndexName(), sequence.GetIndexUnit()
        self._index_values = [sequence.GetNthIndexValue(n) for n in range(sequence.GetNumberOfDataNodes())]
        self._origins: list[Origin] = []
        for number in range(self.count):
            with self._naming(number):
                self._origins.append(origin_of(sequence.GetNthDataNode(number)))
        self._geometry: Geometry | None = None
        self._results: FrameResults | None = None

    def run(self, model: Callable[[Volume], Segmentation], progress: Progress) -> "list[slicer.vtkMRMLNode]":
        """Take all frames through a model, wait for it, and `finish`.

        Args:
            model: for one frame; raises what goes wrong with it.
            progress: hears of each frame before it is run, and can cancel between them.

        Returns:
            The new nodes.

        Raises:
            MedAIError: a frame or the sequence is at fault; the text names the frame. The scene is as it was then.
            Cancelled: by `progress`; the scene is as it was.
        """
        while self.done < self.count:
            progress.step(self.done, self.count, self.text)
            with self.naming():
                self.add(model(self.volume()))
        progress.step(self.count, self.count, "Writing")
        return self.finish()

    def shown_volume(self) -> "slicer.vtkMRMLScalarVolumeNode":
        """The node in which the browser shows the sequence, under the transforms of the user.

        Raises:
            InputError: no browser shows it.
        """
        browser = self._scene.GetNodeByID(self._browser_id) if self._browser_id else None
        node = browser.GetProxyNode(self._sequence()) if browser is not None else None
        if node is None:
            raise InputError(f"{self._sequence_name} is shown by no browser; select a frame of it in Sequences first.")
        return node

    def check(self) -> None:
        """Say whether the next frame can still be run and the results be placed; quick.

        Raises:
            InputError: the sequence or the frame is not there any more.
        """
        sequence, number = self._sequence(), min(self.done, self.count - 1)
        with self._naming(number):
            self._frame(sequence, number)

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self._index_values)

    @property
    def done(self) -> int:
        """Of how many frames the result is there."""
        return self._results.count if self._results is not None else 0

    @property
    def text(self) -> str:
        """The next frame, for people: "Frame 3 of 10 (time 1.5 s)"."""
        return self._text_of(self.done)

    def _text_of(self, number: int) -> str:
        index = " ".join(part for part in (self._index[0], self._index_values[number], self._index[1]) if part)
        return f"Frame {number + 1} of {self.count} ({index})"

    def volume(self) -> Volume:
        """The image of the next frame.

        Raises:
            InputError: the sequence or the frame is not there any more.
            GeometryError: the frame's grid is sheared.
        """
        volume = volume_from_nodes([self._frame(self._sequence(), self.done)])
        self._geometry = volume.geometry
        return volume

    def add(self, result: Segmentation) -> None:
        """Take the result of the next frame, of which `volume` gave the image; its voxels are copied.

        Raises:
            InputError: it lies on another grid than that frame.
        """
        if self._geometry is None or not self._geometry.same_grid_as(result.geometry):
            raise InputError(f"A result for {self._sequence_name} lies on another grid than its frame.")
        if self._results is None:
            self._results = FrameResults(self._outputs, self._sequence(), result, self._scene)
        self._results.add(self._index_values[self.done], result)
        self._geometry = None

    def naming(self) -> AbstractContextManager[None]:
        """Errors of the block say that they happened in the next frame."""
        return self._naming(self.done)

    @contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        try:
            yield
        except MedAIError as error:
            raise type(error)(f"{self._sequence_name}, {self._text_of(number)}: {error}") from error

    def finish(self) -> "list[slicer.vtkMRMLNode]":
        """Put the results of all frames into the scene and in step with the sequence, in the browser that shows it.

        Where none does, one is made. Index values, name, unit and type are the sequence's. What the browser shows of
        the results lies under the transform of the volume that it shows, and beside it in the subject hierarchy; the
        browser stays at its frame. What the user edits in the segmentation shown is kept in the sequence.

        Returns:
            The new nodes: sequence of segmentations, sequences of label maps each after its colour table, sequences of
            probabilities, uncertainty, table, plot series, plot chart.

        Raises:
            InputError: the sequence was removed, or a frame was changed; nothing is put into the scene then, nor on
                any other failure.
        """
        results = self._results
        if results is None or self.done < self.count:
            raise InputError(f"{self._sequence_name}: not all of its frames have been segmented.")
        sequence = self._sequence()
        for number in range(self.count):
            with self._naming(number):
                self._frame(sequence, number)
        prefix = self._name or " ".join(x for x in (sequence.GetName(), results.provenance.get("model")) if x)
        browser = self._scene.GetNodeByID(self._browser_id) if self._browser_id else None
        with all_or_nothing(self._scene), _selection_kept(browser):
            if browser is None or not browser.IsSynchronizedSequenceNodeID(sequence.GetID(), True):
                browser = self._scene.AddNewNodeByClass(
                    "vtkMRMLSequenceBrowserNode", self._scene.GenerateUniqueName(f"{sequence.GetName()} browser")
                )
                browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
            return results.put_into(self._scene, sequence, browser, prefix)

    def _sequence(self) -> Any:
        node = self._scene.GetNodeByID(self._sequence_id)
        if node is None or not node.IsA("vtkMRMLSequenceNode"):
            raise InputError(
                f"{self._sequence_name} was removed from the scene before its result came; load it and run again."
            )
        return node

    def _frame(self, sequence: Any, number: int) -> Any:
        """The data node of a frame, wherever in the sequence it is now."""
        now = sequence.GetItemNumberFromIndexValue(self._index_values[number])
        node = sequence.GetNthDataNode(now) if now >= 0 else None
        if node is None or node.GetID() != self._origins[number].node_id:
            raise InputError("it was removed or replaced before its result came; run the sequence again.")
        return find_origin(sequence.GetSequenceScene(), self._origins[number])


def sequence_shown_in(volume_node: "slicer.vtkMRMLScalarVolumeNode") -> "slicer.vtkMRMLSequenceNode | None":
    """The sequence of volumes of which a browser shows a frame in this node; None where it is a volume by itself."""
    for browser in _browsers(volume_node.GetScene()):
        sequence = browser.GetSequenceNode(volume_node) if browser.IsProxyNodeID(volume_node.GetID()) else None
        if sequence is not None and holds_volumes(sequence):
            return sequence
    return None


def shown_in(sequence_node: "slicer.vtkMRMLSequenceNode") -> "slicer.vtkMRMLNode | None":
    """The node in which a browser shows a frame of a sequence; None where none does."""
    nodes = (browser.GetProxyNode(sequence_node) for browser in _browsers(sequence_node.GetScene()))
    return next((node for node in nodes if node is not None), None)


def holds_volumes(sequence_node: "slicer.vtkMRMLSequenceNode") -> bool:
    """Whether the frames of a sequence are images that a model can be run on."""
    first = sequence_node.GetNthDataNode(0) if sequence_node.GetNumberOfDataNodes() else None
    return first is not None and first.IsA("vtkMRMLScalarVolumeNode") and not first.IsA("vtkMRMLLabelMapVolumeNode")


def _browsers(scene: Any) -> list[Any]:
    name = "vtkMRMLSequenceBrowserNode"
    return [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]


def _sequence_and_browser(node: Any) -> tuple[Any, Any]:
    """The sequence of volumes that a node is or browses, and the browser that shows it, None where none does.

    Raises:
        InputError: neither, or nothing in it.
    """
    if node is None or not hasattr(node, "IsA") or not node.IsA("vtkMRMLNode") or node.GetScene() is None:
        raise InputError(f"{node!r} is no node of a scene; give a sequence node of volumes.")
    if node.IsA("vtkMRMLSequenceBrowserNode"):
        sequences = vtk.vtkCollection()
        node.GetSynchronizedSequenceNodes(sequences, True)
        for sequence in (sequences.GetItemAsObject(n) for n in range(sequences.GetNumberOfItems())):
            if holds_volumes(sequence):
                return sequence, node
        raise InputError(f"{node.GetName()} browses no sequence of scalar volumes; choose another.")
    if not node.IsA("vtkMRMLSequenceNode"):
        raise InputError(f"{node.GetName()} is no sequence but a {node.GetClassName()}; choose a sequence of volumes.")
    if node.GetNumberOfDataNodes() == 0:
        raise InputError(f"{node.GetName()} has no frames; load it again.")
    for browser in _browsers(node.GetScene()):
        if browser.IsSynchronizedSequenceNodeID(node.GetID(), True):
            return node, browser
    return node, None


@contextmanager
def _selection_kept(browser: Any) -> Iterator[None]:
    """Keep a browser at its frame, and take sequences that it gets in the block away again if the block fails."""
    if browser is None:
        yield
        return
    selected, before = browser.GetSelectedItemNumber(), _ids_of(browser)
    try:
        yield
    except BaseException:
        for sequence_id in _ids_of(browser) - before:
            browser.RemoveSynchronizedSequenceNode(sequence_id)
        raise
    finally:
        if browser.GetSelectedItemNumber() != selected:
            browser.SetSelectedItemNumber(selected)


def _ids_of(browser: Any) -> set[str]:
    sequences = vtk.vtkCollection()
    browser.GetSynchronizedSequenceNodes(sequences, True)
    return {sequences.GetItemAsObject(n).GetID() for n in range(sequences.GetNumberOfItems())}
