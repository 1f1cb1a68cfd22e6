"""A scene without Slicer's window, as the command line and the tests make it."""

import subprocess
import sys

import slicer

from MedAILib.scene.headless import headless_scene


def test_segmentation_and_sequence_nodes_work():
    with headless_scene() as owner:
        node = owner.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.CreateDefaultDisplayNodes()
        assert node.GetSegmentation().AddEmptySegment("one", "name") == "one"
        assert owner.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode") is not None


def test_display_nodes_find_their_colours():
    with headless_scene() as owner:
        node = owner.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        node.CreateDefaultDisplayNodes()
        assert node.GetDisplayNode().GetColorNode().GetName() == "Grey"


def test_many_scenes_live_one_after_the_other():
    counts = []
    for _ in range(20):
        with headless_scene() as owner:
            counts.append(owner.scene.GetNumberOfNodes())
            owner.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert len(set(counts)) == 1


def test_closing_one_scene_leaves_another_alone():
    first, second = headless_scene(), headless_scene()
    node = second.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "kept")
    first.close()
    assert second.scene.GetFirstNodeByName("kept") is node
    second.close()


def test_closing_twice_is_once():
    owner = headless_scene()
    owner.close()
    owner.close()


def test_no_scene_becomes_global():
    with headless_scene():
        assert getattr(slicer, "mrmlScene", None) is None


def test_nothing_is_printed_at_start_and_end():
    code = "from MedAILib.scene.headless import headless_scene\nheadless_scene().close()\nheadless_scene()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
