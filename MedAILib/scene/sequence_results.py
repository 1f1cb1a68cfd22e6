"""What becomes of the results of a sequence's frames: sequences in step with it, a table and a plot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.results import Segmentation
from MedAILib.scene.arrays import matrix_of, set_voxels
from MedAILib.scene.beside import put_beside
from MedAILib.scene.colors import Color, fill_label_colors, label_colors
from MedAILib.scene.segments import BINARY_LABELMAP, fill_segmentation, label_image, let_go_of_voxels
from MedAILib.scene.sequence_volumes import fill_chart, fill_series, fill_volumes, index_title
from MedAILib.scene.surfaces import CLOSED_SURFACE
from MedAILib.statistics import segment_volumes_ml
from MedAILib.system_memory import available_memory


@dataclass(frozen=True)
class SequenceOutputs:
    """What the results of all frames become.

    Args:
        segmentations: a sequence of segmentations.
        label_maps: a sequence of label maps for each layer, with a colour table node.
        table: a table node: a line per frame, its index value and each segment's volume in mL.
        plot: a plot of that table, and the table.
        probabilities: a sequence of volumes for each class's probability, if the results have them.
        uncertainty: a sequence of volumes of each voxel's entropy, 0 to 1, if the results have it.
        surfaces: closed surfaces of the segments in each frame, for 3D views.

    Raises:
        InputError: nothing at all, or surfaces without the segmentations.
    """

    segmentations: bool = True
    label_maps: bool = False
    table: bool = True
    plot: bool = True
    probabilities: bool = False
    surfaces: bool = False
    uncertainty: bool = False

    def __post_init__(self) -> None:
        if self.surfaces and not self.segmentations:
            raise InputError("Surfaces are a part of the segmentations; ask for these too.")
        volumes = self.label_maps or self.probabilities or self.uncertainty
        if not (self.segmentations or self.table or self.plot or volumes):
            raise InputError("No output was asked for; choose at least one.")


class FrameResults:
    """Results of frames in sequence nodes outside of the scene, until `put_into`.

    Args:
        outputs: which sequences to make.
        sequence: the input; its index is taken over.
        first: a result, for labels and provenance.
        scene: for colours.

    Raises:
        InputError: probabilities or an uncertainty that the result lacks, or that would not fit into memory.
    """

    def __init__(self, outputs: SequenceOutputs, sequence: Any, first: Segmentation, scene: Any) -> None:
        self.provenance = dict(first.provenance)
        self._outputs, self._labels, self._layers = outputs, first.labels, len(first.layers)
        self._colors: list[Color] = label_colors(scene, first.labels)
        self._index_values: list[str] = []
        self._volumes: list[dict[str, float]] = []
        self._segmentations = _sequence_like(sequence) if outputs.segmentations else None
        self._label_maps = [_sequence_like(sequence) for _ in range(self._layers if outputs.label_maps else 0)]
        _require_memory(outputs, first, sequence.GetNumberOfDataNodes())
        self._shares = {name: _sequence_like(sequence) for name, _ in _shares(outputs, first)}

    @property
    def count(self) -> int:
        """Of how many frames the results are here."""
        return len(self._volumes)

    def add(self, index_value: str, result: Segmentation) -> None:
        """Copy one frame's result.

        Raises:
            InputError: its structures are not those of the first.
        """
        if result.labels != self._labels or len(result.layers) != self._layers:
            raise InputError("its result has other structures than those of the frames before; use one model for all.")
        volumes = segment_volumes_ml(result)
        if self._segmentations is not None:
            found = {name for name, volume in volumes.items() if volume}
            _add_segmentation(self._segmentations, index_value, result, self._colors, found, self._outputs.surfaces)
        for sequence, layer in zip(self._label_maps, result.layers, strict=False):
            _add_volume(sequence, index_value, slicer.vtkMRMLLabelMapVolumeNode(), "label map", layer, result)
        for name, voxels in _shares(self._outputs, result):
            _add_volume(self._shares[name], index_value, slicer.vtkMRMLScalarVolumeNode(), name, voxels, result)
        self._index_values.append(index_value)
        self._volumes.append(volumes)

    def put_into(self, scene: Any, source: Any, browser: Any, prefix: str) -> list[Any]:
        """Add all nodes to the scene and the sequences to the browser.

        Args:
            scene: that of the source.
            source: the sequence node of the images.
            browser: a browser node that shows it.
            prefix: what the nodes' names begin with.

        Returns:
            The new nodes, in the order that `SequenceRun.finish` tells.
        """
        shown = browser.GetProxyNode(source)

        def put(node: Any, what: str) -> Any:
            node.SetName(scene.GenerateUniqueName(f"{prefix} {what}"))
            node = scene.AddNode(node)
            put_beside(node, shown if shown is not None else source, self.provenance)
            return node

        nodes = []
        if self._segmentations is not None:
            nodes.append(put(self._segmentations, "segmentation"))
        tables = []
        for layer, sequence in enumerate(self._label_maps):
            suffix = f" layer {layer + 1}" if layer else ""
            tables.append(put(slicer.vtkMRMLColorTableNode(), "label colours" + suffix))
            fill_label_colors(tables[-1], self._labels, self._colors, layer)
            nodes += [tables[-1], put(sequence, "label map" + suffix)]
        nodes += [put(sequence, name) for name, sequence in self._shares.items()]
        if self._outputs.table or self._outputs.plot:
            nodes.append(put(slicer.vtkMRMLTableNode(), "volumes"))
            fill_volumes(nodes[-1], source, self._index_values, self._volumes)
        if self._outputs.plot:
            table, series = nodes[-1], []
            for label, color in zip(self._labels, self._colors, strict=True):
                series.append(put(slicer.vtkMRMLPlotSeriesNode(), label.name))
                fill_series(series[-1], table, label.name, color)
            chart = put(slicer.vtkMRMLPlotChartNode(), "volumes plot")
            fill_chart(chart, series, index_title(source))
            nodes += [*series, chart]
        # Last, since a browser keeps traces of what was once in it.
        self._show_segmentations(browser, shown)
        for sequence, colors in zip(self._label_maps, tables, strict=True):
            self._show_label_maps(browser, shown, sequence, colors)
        for sequence in self._shares.values():
            self._show_shares(browser, shown, sequence)
        return nodes

    def _show_segmentations(self, browser: Any, shown: Any) -> None:
        if self._segmentations is None:
            return
        proxy = self._show(browser, self._segmentations, shown)
        browser.SetSaveChanges(self._segmentations, True)
        if proxy is not None and shown is not None:
            proxy.SetNodeReferenceID(proxy.GetReferenceImageGeometryReferenceRole(), shown.GetID())

    def _show_label_maps(self, browser: Any, shown: Any, sequence: Any, colors: Any) -> None:
        proxy = self._show(browser, sequence, shown)
        if proxy is not None:
            proxy.CreateDefaultDisplayNodes()
            proxy.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())

    def _show_shares(self, browser: Any, shown: Any, sequence: Any) -> None:
        proxy = self._show(browser, sequence, shown)
        if proxy is not None:
            proxy.CreateDefaultDisplayNodes()
            display = proxy.GetScalarVolumeDisplayNode()
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(0.0, 1.0)

    def _show(self, browser: Any, sequence: Any, shown: Any) -> Any:
        """Browse a sequence in step, and return the node that shows its current frame, if one does."""
        browser.AddSynchronizedSequenceNodeID(sequence.GetID())
        proxy = browser.GetProxyNode(sequence)
        if proxy is not None and shown is not None:
            put_beside(proxy, shown, self.provenance)
        return proxy


def _add_segmentation(
    sequence: Any, index_value: str, result: Segmentation, colors: list[Color], found: set[str], surfaces: bool
) -> None:
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName("segmentation")
    segmentation = node.GetSegmentation()
    fill_segmentation(segmentation, result, colors, found)
    if segmentation.GetNumberOfSegments():
        grid = segmentation.GetNthSegment(0).GetRepresentation(BINARY_LABELMAP)
    else:
        grid = label_image(result.layers[0], result.geometry.ijk_to_ras)
    converter = slicer.vtkSegmentationConverter
    segmentation.SetConversionParameter(
        converter.GetReferenceImageGeometryParameterName(), converter.SerializeImageGeometry(grid)
    )
    if surfaces and segmentation.GetNumberOfSegments():
        segmentation.CreateRepresentation(CLOSED_SURFACE)
    sequence.SetDataNodeAtValue(node, index_value)  # a deep copy
    let_go_of_voxels(segmentation)


def _add_volume(sequence: Any, index_value: str, node: Any, name: str, voxels: Any, result: Segmentation) -> None:
    """Copy voxels (K, J, I) on a result's grid into a sequence, as this node."""
    image = vtk.vtkImageData()
    set_voxels(image, voxels)
    node.SetName(name)
    node.SetIJKToRASMatrix(matrix_of(result.geometry.ijk_to_ras))
    node.SetAndObserveImageData(image)
    sequence.SetDataNodeAtValue(node, index_value)


def _shares(outputs: SequenceOutputs, result: Segmentation) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What is asked for of a frame in volumes of 0 to 1: its name, and (K, J, I).

    Raises:
        InputError: the result lacks it.
    """
    if outputs.probabilities:
        if result.probabilities is None:
            raise InputError("the result has no probabilities; run the model again and ask for them.")
        for name, voxels in zip(result.probability_names, result.probabilities, strict=True):
            yield f"probability of {name}", voxels
    if outputs.uncertainty:
        if result.uncertainty is None:
            raise InputError("the result has no uncertainty; run the model again and ask for it.")
        yield "uncertainty", result.uncertainty


def _require_memory(outputs: SequenceOutputs, first: Segmentation, frames: int) -> None:
    """Raise InputError where such volumes of all frames would not fit into memory."""
    sizes = {name: voxels.nbytes * frames for name, voxels in _shares(outputs, first)}
    needed, there = sum(sizes.values()), available_memory()
    if there is not None and needed > there:
        what = "probabilities" if outputs.probabilities else "uncertainty"
        raise InputError(
            f"the {what} of {frames} frames would take {needed / 2**30:.1f} GiB of memory, {there / 2**30:.1f} GiB "
            f"are free; run it without."
        )


def _sequence_like(source: Any) -> Any:
    """A sequence node outside of every scene, without frames, over what the source goes over."""
    sequence = slicer.vtkMRMLSequenceNode()
    sequence.SetIndexName(source.GetIndexName())
    sequence.SetIndexUnit(source.GetIndexUnit())
    sequence.SetIndexType(source.GetIndexType())
    sequence.SetNumericIndexValueTolerance(source.GetNumericIndexValueTolerance())
    return sequence
