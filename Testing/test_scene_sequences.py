"""Sequences of volumes: results frame by frame in step with them, whatever happens in between."""

import numpy as np
import pytest
import slicer
from mrml import add_volume, digest, mask_of, put_under, rotation, segment_points_in_world, to_world
from vtk.util.numpy_support import vtk_to_numpy

import MedAILib.scene.sequence_results
from MedAILib.errors import InputError, ModelError
from MedAILib.progress import Cancelled, Progress
from MedAILib.results import Label, Segmentation
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.sequence_results import SequenceOutputs
from MedAILib.scene.sequences import SequenceRun
from MedAILib.scene.storage import load_scene, save_scene

MATRIX = rotation((0, 0, 1), 20) @ np.diag([0.8, 0.8, 2.0, 1.0])
# Sizes differ, as do the voxels above the threshold; frame 2 has none.
SHAPES = ((6, 7, 8), (5, 7, 9), (6, 7, 8))
LABELS = (Label(1, "ventricle", (0.2, 0.4, 0.6)), Label(2, "wall"))
EVERYTHING = SequenceOutputs(label_maps=True)
TIMES = ("0.5", "1.25", "20")


def frame(number):
    voxels = np.zeros(SHAPES[number], np.int16)
    if number != 2:
        voxels[1:4, 1:4, 1 : 4 + number], voxels[4:, 4:, 4:] = 100, 200
    return voxels


def threshold(volume):
    labels = (volume.data >= 100).astype(np.uint8) + (volume.data >= 200)
    return Segmentation(labels, LABELS, volume.geometry, provenance={"model": "finder", "sha256": "abc"})


@pytest.fixture
def sequence(scene):
    """A sequence over time, without a browser."""
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    node.SetIndexName("time")
    node.SetIndexUnit("s")
    for number, time in enumerate(TIMES):
        volume = add_volume(scene, frame(number), MATRIX, "heart")
        node.SetDataNodeAtValue(volume, time)
        scene.RemoveNode(volume)
    return node


@pytest.fixture
def browser(scene, sequence):
    node = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "player")
    node.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    node.SetSelectedItemNumber(1)
    return node


def segment(node, outputs=None, run=threshold, progress=None):
    return SequenceRun(node, outputs).run(run, progress or Progress())


def of_class(nodes, class_name):
    return [node for node in nodes if node.GetClassName() == class_name]


def data(sequence):
    return [sequence.GetNthDataNode(n) for n in range(sequence.GetNumberOfDataNodes())]


def sizes(node):
    segmentation = node.GetSegmentation()
    return {
        segmentation.GetNthSegment(n).GetName(): len(segment_points_in_world(node, segmentation.GetNthSegmentID(n)))
        for n in range(segmentation.GetNumberOfSegments())
    }


FOUND = [{"ventricle": 27, "wall": 24}, {"ventricle": 36, "wall": 15}, {}]


def test_each_frame_becomes_a_segmentation_at_its_index_value(browser, sequence):
    result = segment(browser)[0]
    assert [result.GetNthIndexValue(n) for n in range(3)] == list(TIMES)
    assert (result.GetIndexName(), result.GetIndexUnit()) == ("time", "s")
    assert result.GetIndexType() == sequence.GetIndexType()
    assert [sizes(node) for node in data(result)] == FOUND


@pytest.mark.parametrize("number", [0, 1])
def test_frames_have_exactly_their_voxels(browser, number):
    node = data(segment(browser)[0])[number]
    assert (mask_of(node, "Segment_1", SHAPES[number]) == (frame(number) == 100)).all()
    assert (mask_of(node, "Segment_2", SHAPES[number]) == (frame(number) == 200)).all()


def test_sequence_node_and_its_browser_do_the_same(browser, sequence):
    result = segment(sequence)[0]
    assert browser.IsSynchronizedSequenceNodeID(result.GetID())
    assert browser.GetScene().GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") == 1


def test_results_are_shown_in_step(browser):
    nodes = segment(browser, EVERYTHING)
    segmentation, label_map = (browser.GetProxyNode(node) for node in of_class(nodes, "vtkMRMLSequenceNode"))
    for number in (2, 0, 1):
        browser.SetSelectedItemNumber(number)
        assert sizes(segmentation) == FOUND[number]
        voxels = vtk_to_numpy(label_map.GetImageData().GetPointData().GetScalars()).reshape(SHAPES[number])
        assert (voxels == frame(number) // 100).all()
    assert [sizes(node) for node in data(nodes[0])] == FOUND


def test_browser_stays_at_its_frame_and_does_not_play(browser):
    segment(browser, EVERYTHING)
    assert browser.GetSelectedItemNumber() == 1
    assert not browser.GetPlaybackActive()


def test_what_is_shown_while_the_model_computes_is_left_alone(browser, sequence):
    shown = browser.GetProxyNode(sequence)
    selected = []

    def run(volume):
        selected.append((browser.GetSelectedItemNumber(), shown.GetImageData().GetDimensions()))
        return threshold(volume)

    segment(browser, run=run)
    assert selected == [(1, (9, 7, 5))] * 3


def test_input_sequence_is_left_as_it_was(browser, sequence):
    before, nodes = digest(browser.GetScene())[sequence.GetID()], sequence.GetSequenceScene().GetNumberOfNodes()
    segment(browser, EVERYTHING)
    assert digest(browser.GetScene())[sequence.GetID()] == before
    assert sequence.GetSequenceScene().GetNumberOfNodes() == nodes


def test_results_lie_under_the_transform_of_the_volume_that_is_shown(scene, browser, sequence):
    shown = browser.GetProxyNode(sequence)
    put_under(scene, shown, [rotation((1, 2, 3), 50)])
    node = browser.GetProxyNode(segment(browser)[0])
    browser.SetSelectedItemNumber(0)
    ijk = np.argwhere(frame(0) == 100)[:, ::-1]
    truth = (to_world(shown) @ MATRIX @ np.c_[ijk, np.ones(len(ijk))].T)[:3].T
    assert np.allclose(segment_points_in_world(node, "Segment_1"), truth, atol=1e-4)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is shown


def test_edits_of_the_segmentation_that_is_shown_are_kept(browser):
    result = segment(browser)[0]
    browser.SetSelectedItemNumber(0)
    browser.GetProxyNode(result).GetSegmentation().RemoveSegment("Segment_1")
    browser.SetSelectedItemNumber(1)
    browser.SetSelectedItemNumber(0)
    assert [sizes(node) for node in data(result)] == [{"wall": 24}, *FOUND[1:]]


def test_sequence_without_browser_gets_one(scene, sequence):
    result = segment(sequence)[0]
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    assert browser.GetMasterSequenceNode() is sequence
    assert sizes(browser.GetProxyNode(result)) == FOUND[0]


def test_table_has_a_line_per_frame_in_millilitres(browser):
    table = of_class(segment(browser), "vtkMRMLTableNode")[0].GetTable()
    columns = [table.GetColumn(n) for n in range(table.GetNumberOfColumns())]
    assert [column.GetName() for column in columns] == ["time [s]", "ventricle [mL]", "wall [mL]"]
    values = [[column.GetValue(n) for n in range(3)] for column in columns]
    assert values[0] == [0.5, 1.25, 20.0]
    voxel_ml = 0.8 * 0.8 * 2 / 1000
    assert values[1] == pytest.approx([27 * voxel_ml, 36 * voxel_ml, 0])
    assert values[2] == pytest.approx([24 * voxel_ml, 15 * voxel_ml, 0])


def test_plot_has_a_line_per_segment(browser):
    nodes = segment(browser)
    table, series = of_class(nodes, "vtkMRMLTableNode")[0], of_class(nodes, "vtkMRMLPlotSeriesNode")
    chart = of_class(nodes, "vtkMRMLPlotChartNode")[0]
    assert [(s.GetXColumnName(), s.GetYColumnName()) for s in series] == [
        ("time [s]", "ventricle [mL]"),
        ("time [s]", "wall [mL]"),
    ]
    assert all(s.GetTableNode() is table for s in series)
    assert [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] == series
    assert np.allclose(series[0].GetColor(), (0.2, 0.4, 0.6))
    assert (chart.GetXAxisTitle(), chart.GetYAxisTitle()) == ("time [s]", "Volume [mL]")


def test_text_as_index_is_kept_as_text(browser, sequence):
    sequence.SetIndexType(slicer.vtkMRMLSequenceNode.TextIndex)
    for n, text in enumerate(("rest", "stress", "late")):
        sequence.UpdateIndexValue(TIMES[n], text)
    nodes = segment(browser)
    table = of_class(nodes, "vtkMRMLTableNode")[0].GetTable()
    assert [table.GetColumn(0).GetValue(n) for n in range(3)] == ["rest", "stress", "late"]
    assert nodes[0].GetNthIndexValue(1) == "stress"
    assert of_class(nodes, "vtkMRMLPlotSeriesNode")[0].GetLabelColumnName() == "time [s]"


def test_every_new_node_carries_the_provenance(browser):
    assert {node.GetAttribute("MedAI.sha256") for node in segment(browser, EVERYTHING)} == {"abc"}


def test_only_what_is_asked_for_is_made(browser):
    nodes = segment(browser, SequenceOutputs(segmentations=False, plot=False))
    assert [node.GetClassName() for node in nodes] == ["vtkMRMLTableNode"]


def test_scene_with_results_is_saved_and_opened_again(scene, browser, sequence, tmp_path):
    segment(browser, EVERYTHING)
    save_scene(scene, tmp_path / "cine.mrb")
    with headless_scene() as owner:
        load_scene(owner.scene, tmp_path / "cine.mrb")
        back = owner.scene.GetFirstNodeByName("cine finder segmentation")
        nodes = list(owner.scene.GetNodesByClass("vtkMRMLSequenceNode"))
        result, label_map = (
            next(n for n in nodes if n.GetName() == f"cine finder {x}") for x in ("segmentation", "label map")
        )
        player = owner.scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
        assert back is not None
        assert [sizes(node) for node in data(result)] == FOUND
        assert [node.GetImageData().GetDimensions() for node in data(label_map)] == [s[::-1] for s in SHAPES]
        assert (player.GetSelectedItemNumber(), result.GetNthIndexValue(1)) == (1, "1.25")
        assert sizes(player.GetProxyNode(result)) == FOUND[1]
        chart = owner.scene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
        assert chart.GetNthPlotSeriesNode(1).GetTableNode().GetTable().GetNumberOfRows() == 3


def refuse(node, error, match, run=threshold, progress=None):
    scene = node.GetScene()
    before = digest(scene)
    with pytest.raises(error, match=match):
        segment(node, EVERYTHING, run, progress)
    assert digest(scene) == before


def test_error_of_one_frame_names_it_and_leaves_the_scene_as_it_was(browser):
    def run(volume):
        if volume.geometry.shape_kji == SHAPES[1]:
            raise ModelError("out of memory.")
        return threshold(volume)

    refuse(browser, ModelError, r"^cine, Frame 2 of 3 \(time 1.25 s\): out of memory\.$", run)


def test_cancel_between_frames_leaves_the_scene_as_it_was(browser):
    class Cancelling(Progress):
        def step(self, done, total, text=""):
            assert (total, text.split(" (")[0]) == (3, f"Frame {done + 1} of 3")
            if done == 2:
                raise Cancelled

    refuse(browser, Cancelled, None, progress=Cancelling())


def test_failure_at_the_end_leaves_the_scene_as_it_was(browser, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(MedAILib.scene.sequence_results, "fill_chart", fail)
    refuse(browser, MemoryError, None)


def test_failure_in_the_browser_takes_the_results_out_of_it(scene, browser, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(MedAILib.scene.sequence_results.FrameResults, "_show_label_maps", fail)
    before = scene.GetNumberOfNodes()
    with pytest.raises(MemoryError):
        segment(browser, EVERYTHING)
    assert scene.GetNumberOfNodes() == before
    assert browser.GetNumberOfSynchronizedSequenceNodes() == 0
    assert browser.GetSelectedItemNumber() == 1


def test_label_maps_are_no_images(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "labels")
    node.SetDataNodeAtValue(slicer.vtkMRMLLabelMapVolumeNode(), "0")
    refuse(node, InputError, "labels, Frame 1 of 1 .* label map")


def test_empty_sequence_is_refused(scene):
    refuse(scene.AddNewNodeByClass("vtkMRMLSequenceNode", "empty one"), InputError, "empty one has no frames")


def test_browser_of_no_volumes_is_refused(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "player")
    refuse(node, InputError, "player browses no sequence of scalar volumes")


def test_other_nodes_are_refused(scene):
    refuse(add_volume(scene, frame(0), MATRIX), InputError, "is no sequence but a vtkMRMLScalarVolumeNode")


class Meanwhile:
    """The threshold, and something that happens while the second frame is computed."""

    def __init__(self, event):
        self._event, self._calls = event, 0

    def __call__(self, volume):
        self._calls += 1
        if self._calls == 2:
            self._event()
        return threshold(volume)


def dropped(scene, node, event, match):
    run = Meanwhile(event)
    with pytest.raises(InputError, match=match):
        segment(node, EVERYTHING, run)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0


def test_sequence_removed_meanwhile_drops_the_result(scene, browser, sequence):
    dropped(scene, browser, lambda: scene.RemoveNode(sequence), "cine was removed from the scene")


def test_scene_closed_meanwhile_drops_the_result(scene, browser):
    dropped(scene, browser, lambda: scene.Clear(False), "cine was removed from the scene")


def test_frame_replaced_meanwhile_drops_the_result(scene, browser, sequence):
    def replace():
        sequence.SetDataNodeAtValue(add_volume(scene, frame(0), MATRIX), TIMES[0])

    dropped(scene, browser, replace, r"Frame 1 of 3 \(time 0.5 s\): .* run")


def test_frame_removed_meanwhile_drops_the_result(scene, browser, sequence):
    dropped(scene, browser, lambda: sequence.RemoveDataNodeAtValue(TIMES[0]), r"Frame 1 of 3")


def test_playing_renaming_and_moving_meanwhile_is_fine(scene, browser, sequence):
    def meanwhile():
        browser.SetSelectedItemNumber(2)
        browser.SetSelectedItemNumber(0)
        sequence.SetName("beating")
        put_under(scene, browser.GetProxyNode(sequence), [MATRIX])

    result = segment(browser, run=Meanwhile(meanwhile))[0]
    assert result.GetName() == "beating finder segmentation"
    assert browser.GetSelectedItemNumber() == 0
    proxies = [browser.GetProxyNode(node) for node in (sequence, result)]
    assert proxies[0].GetParentTransformNode() is proxies[1].GetParentTransformNode() is not None


def test_browser_removed_meanwhile_is_replaced(scene, browser):
    result = segment(browser, run=Meanwhile(lambda: scene.RemoveNode(browser)))[0]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") == 1
    assert [sizes(node) for node in data(result)] == FOUND


def test_frame_added_meanwhile_is_left_out(scene, browser, sequence):
    event = Meanwhile(lambda: sequence.SetDataNodeAtValue(add_volume(scene, frame(0), MATRIX), "7"))
    assert segment(browser, run=event)[0].GetNumberOfDataNodes() == 3


def test_run_that_is_let_go_of_leaves_nothing(scene, browser):
    before = digest(scene)
    frames = SequenceRun(browser)
    frames.add(threshold(frames.volume()))
    assert (frames.done, frames.count, frames.text) == (1, 3, "Frame 2 of 3 (time 1.25 s)")
    del frames
    assert digest(scene) == before


def test_unfinished_run_and_wrong_result_are_refused(browser):
    frames = SequenceRun(browser)
    result = threshold(frames.volume())
    frames.add(result)
    with pytest.raises(InputError, match="not all of its frames"):
        frames.finish()
    frames.volume()
    with pytest.raises(InputError, match="another grid than its frame"):
        frames.add(result)
