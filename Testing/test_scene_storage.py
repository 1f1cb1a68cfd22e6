"""Scenes and their parts in files: what is written reads back the same, and failures leave nothing behind."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from mrml import segment_points_in_world
from vtk.util.numpy_support import vtk_to_numpy

from MedAILib.errors import InputError, OutputError
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.scene.display import set_up_display
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.storage import load_scene, load_volume, save_scene, save_segmentation, save_surfaces
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Geometry, Volume

SHAPE = (12, 13, 14)
GRID = Geometry(SHAPE, np.array([[-0.8, 0.6, 0, 10], [-0.6, -0.8, 0, 20], [0, 0, 1.5, -30], [0, 0, 0, 1.0]]))
LABELS = (
    Label(
        1,
        "left/part",
        (0.2, 0.4, 0.6),
        Terminology(Code("SCT", "123037004", "Anatomical Structure"), Code("SCT", "5366008", "Hippocampus")),
    ),
    Label(300, "Über Größe", (1.0, 0.8, 0.0)),
    Label(1, "overlapping", (0.0, 1.0, 0.0), layer=1),
)
LAYERS = np.zeros((2, *SHAPE), np.uint16)
LAYERS[0, 2:6, 2:6, 2:6], LAYERS[0, 7:11, 7:11, 7:11], LAYERS[1, 4:9, 4:9, 4:9] = 1, 300, 1
SEGMENTS = {"Segment_1": LAYERS[0] == 1, "Segment_300": LAYERS[0] == 300, "Segment_1_1": LAYERS[1] == 1}


@pytest.fixture
def source(scene):
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return add_volume_nodes(scene, Volume(image[None], GRID, "brain"))[0]


def write(source, outputs):
    provenance = {"model": "finder", "version": "1.2"}
    return write_result(Segmentation(LAYERS, LABELS, GRID, provenance=provenance), source, outputs)


def voxels_by_segment(node):
    """The number of each segment's voxels, counted in a copy of its own."""
    counts = {}
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        image = slicer.vtkOrientedImageData()
        segment_id = node.GetSegmentation().GetNthSegmentID(index)
        assert node.GetBinaryLabelmapRepresentation(segment_id, image)
        counts[segment_id] = int(vtk_to_numpy(image.GetPointData().GetScalars()).sum())
    return counts


@pytest.fixture
def segmentation(source):
    return write(source, Outputs(surfaces=True, table=False))[0]


def read_segmentation(scene, path):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def world_voxels(node, segment_id):
    """The segment's voxels as world positions, so that files may crop and flip grids."""
    return {tuple(point) for point in np.round(segment_points_in_world(node, segment_id), 3) + 0.0}


def true_world_voxels(mask):
    return {tuple(point) for point in np.round(GRID.ras_of(np.argwhere(mask)[:, ::-1]), 3) + 0.0}


def test_segmentation_file_reads_back_the_same(scene, segmentation, tmp_path):
    path = tmp_path / "out.seg.nrrd"
    save_segmentation(segmentation, path)
    node = read_segmentation(scene, path)
    back, original = node.GetSegmentation(), segmentation.GetSegmentation()
    assert list(back.GetSegmentIDs()) == list(SEGMENTS)
    for segment_id, mask in SEGMENTS.items():
        one, other = back.GetSegment(segment_id), original.GetSegment(segment_id)
        assert world_voxels(node, segment_id) == true_world_voxels(mask)
        assert (one.GetName(), one.GetLabelValue()) == (other.GetName(), other.GetLabelValue())
        assert np.allclose(one.GetColor(), other.GetColor(), atol=1e-3)
        assert one.GetTerminology() == other.GetTerminology()


def test_saving_a_segmentation_leaves_node_and_surfaces_alone(segmentation, tmp_path):
    save_segmentation(segmentation, tmp_path / "out.seg.nrrd")
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert segmentation.GetScene().GetNumberOfNodesByClass("vtkMRMLSegmentationStorageNode") == 0


@pytest.mark.parametrize("save", [save_segmentation, save_surfaces])
def test_saving_leaves_every_voxel_of_the_node(source, tmp_path, save):
    node = write(source, Outputs(table=False))[0]
    before = voxels_by_segment(node)
    assert len(before) == 3 and all(before.values())
    save(node, tmp_path / "out.seg.nrrd")
    assert voxels_by_segment(node) == before


def test_saving_layers_that_could_be_merged_leaves_the_node_alone(source, tmp_path):
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, :3], layers[1, 6:] = 1, 1
    labels = (Label(1, "one"), Label(1, "other", layer=1))
    node = write_result(Segmentation(layers, labels, GRID), source, Outputs(table=False))[0]
    save_segmentation(node, tmp_path / "out.seg.nrrd")
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    for segment_id, layer in (("Segment_1", layers[0]), ("Segment_1_1", layers[1])):
        assert node.GetSegmentation().GetSegment(segment_id).GetLabelValue() == 1
        assert world_voxels(node, segment_id) == true_world_voxels(layer)


def test_segmentation_file_has_no_surfaces(segmentation, tmp_path):
    save_segmentation(segmentation, tmp_path / "out.seg.nrrd")
    header = sitk.ImageFileReader()
    header.SetFileName(str(tmp_path / "out.seg.nrrd"))
    header.ReadImageInformation()
    assert "Closed surface" not in header.GetMetaData("Segmentation_ContainedRepresentationNames")


def test_segmentation_without_segments_is_written_and_has_none_when_read(scene, tmp_path):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty one")
    save_segmentation(node, tmp_path / "out.seg.nrrd")
    storage, read = slicer.vtkMRMLSegmentationStorageNode(), slicer.vtkMRMLSegmentationNode()
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    assert storage.ReadData(read)
    assert read.GetSegmentation().GetNumberOfSegments() == 0


def test_surfaces_without_segments_are_refused(scene, tmp_path):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty one")
    with pytest.raises(InputError, match="empty one has no segments"):
        save_surfaces(node, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_ending_of_a_segmentation_is_refused(segmentation, tmp_path):
    with pytest.raises(OutputError, match=r"\.seg\.nrrd"):
        save_segmentation(segmentation, tmp_path / "out.nii.gz")


def test_absent_folder_is_refused(segmentation, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        save_segmentation(segmentation, tmp_path / "absent" / "out.seg.nrrd")


def surface_in_world(scene, path):
    """Points of a surface file in RAS, as Slicer reads it."""
    node = scene.AddNewNodeByClass("vtkMRMLModelNode")
    storage = slicer.vtkMRMLModelStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node.GetPolyData()


@pytest.mark.parametrize("ending", [".stl", ".ply", ".vtp"])
def test_surfaces_lie_where_the_segments_are_in_the_world(scene, source, segmentation, tmp_path, ending):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((-1, 0, 0, 100, 0, 1, 0, 0, 0, 0, 1, 7, 0, 0, 0, 1))
    parent.SetMatrixTransformToParent(matrix)
    segmentation.SetAndObserveTransformNodeID(parent.GetID())
    paths = save_surfaces(segmentation, tmp_path / "surfaces", ending)
    assert [path.name for path in paths] == [f"{stem}{ending}" for stem in ("left_part", "Über Größe", "overlapping")]
    for path, mask in zip(paths, SEGMENTS.values(), strict=True):
        surface = surface_in_world(scene, path)
        truth = GRID.ras_of(np.argwhere(mask)[:, ::-1]).mean(axis=0) * (-1, 1, 1) + (100, 0, 7)
        points = vtk_to_numpy(surface.GetPoints().GetData())
        assert np.allclose((points.min(axis=0) + points.max(axis=0)) / 2, truth, atol=0.3)


def test_surface_files_hold_lps(segmentation, tmp_path):
    path = save_surfaces(segmentation, tmp_path / "surfaces", ".ply")[0]
    assert b"SPACE=LPS" in path.read_bytes()[:400]


def test_surfaces_point_outward_under_a_mirroring_transform(scene, segmentation, tmp_path):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 0, -1)
    parent.SetMatrixTransformToParent(matrix)
    segmentation.SetAndObserveTransformNodeID(parent.GetID())
    reader = vtk.vtkSTLReader()
    reader.SetFileName(str(save_surfaces(segmentation, tmp_path / "surfaces")[0]))
    reader.Update()
    surface = reader.GetOutput()
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    corners = vtk_to_numpy(surface.GetPoints().GetData()).astype(float)[triangles]
    signed = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert signed > 0


def test_surfaces_are_made_aside_where_the_node_has_none(source, tmp_path):
    node = write(source, Outputs(table=False))[0]
    assert len(save_surfaces(node, tmp_path / "surfaces")) == 3
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")


def test_segments_of_equal_names_get_files_of_their_own(segmentation, tmp_path):
    segmentation.GetSegmentation().GetSegment("Segment_300").SetName("OVERLAPPING")
    names = [path.name for path in save_surfaces(segmentation, tmp_path)]
    assert names == ["left_part.stl", "OVERLAPPING.stl", "overlapping_2.stl"]


def test_failed_surface_leaves_no_file_and_no_folder(segmentation, tmp_path):
    folder = tmp_path / "surfaces"
    folder.mkdir()
    (folder / "overlapping.stl").mkdir()
    with pytest.raises(OutputError, match=r"overlapping\.stl"):
        save_surfaces(segmentation, folder)
    assert [path.name for path in folder.iterdir()] == ["overlapping.stl"]


def test_unknown_ending_of_surfaces_is_refused(segmentation, tmp_path):
    with pytest.raises(OutputError, match=r"\.obj"):
        save_surfaces(segmentation, tmp_path / "surfaces", ".obj")
    assert not list(tmp_path.iterdir())


REOPEN = """
import sys
from pathlib import Path
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import load_scene
with headless_scene() as owner:
    scene = owner.scene
    load_scene(scene, Path(sys.argv[1]))
    volume = scene.GetFirstNodeByName("brain")
    node = scene.GetFirstNodeByName("brain finder segmentation")
    table = scene.GetFirstNodeByName("brain finder statistics")
    label_map = scene.GetFirstNodeByName("brain finder label map")
    segmentation = node.GetSegmentation()
    red = scene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    hierarchy = scene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node)
    print(volume.GetImageData().GetScalarRange() == (0.0, 2183.0))
    print([segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())])
    print([segmentation.GetNthSegment(n).GetLabelValue() for n in range(segmentation.GetNumberOfSegments())])
    print("5366008" in segmentation.GetSegment("Segment_1").GetTerminology())
    print(node.GetAttribute("MedAI.model"), node.GetParentTransformNode().GetName())
    print(node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume)
    print(table.GetNumberOfRows(), table.GetCellText(0, 0))
    print(label_map.GetDisplayNode().GetColorNode().GetColorName(300))
    print(red.GetBackgroundVolumeID() == volume.GetID())
    print(volume.GetDisplayNode() is not None, node.GetDisplayNode().GetPreferredDisplayRepresentationName3D())
    print(hierarchy.GetItemName(hierarchy.GetItemParent(item)))
"""


def test_scene_reopens_in_a_fresh_process_with_everything_in_it(scene, source, tmp_path):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "turn")
    source.SetAndObserveTransformNodeID(parent.GetID())
    hierarchy = scene.GetSubjectHierarchyNode()
    hierarchy.CreateItem(hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "a study"), source)
    nodes = write(source, Outputs(label_map=True))
    set_up_display(source, nodes[0])
    save_scene(scene, tmp_path / "scene.mrb")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.mrb"]
    done = subprocess.run(
        [sys.executable, "-c", REOPEN, str(tmp_path / "scene.mrb")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.splitlines() == [
        "True",
        "['left/part', 'Über Größe', 'overlapping']",
        "[1, 300, 1]",
        "True",
        "finder turn",
        "True",
        "3 left/part",
        "Über Größe",
        "True",
        "True Closed surface",
        "a study",
    ]


def test_scene_can_be_saved_twice(scene, segmentation, tmp_path):
    path = tmp_path / "scene.mrb"
    for _ in range(2):
        save_scene(scene, path)
    with headless_scene() as other:
        load_scene(other.scene, path)
        assert other.scene.GetFirstNodeByName("brain").GetImageData().GetDimensions() == SHAPE[::-1]


def test_display_shows_the_volume_and_centres_on_the_segments(scene, source, segmentation):
    set_up_display(source, segmentation)
    for view in ("Red", "Yellow", "Green"):
        assert scene.GetSingletonNode(view, "vtkMRMLSliceCompositeNode").GetBackgroundVolumeID() == source.GetID()
    bounds = [0.0] * 6
    segmentation.GetRASBounds(bounds)
    red = scene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx((bounds[4] + bounds[5]) / 2)
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")


def test_bundle_that_is_none_is_refused(scene, tmp_path):
    path = tmp_path / "scene.mrb"
    path.write_bytes(b"no zip file")
    with pytest.raises(InputError, match=r"scene\.mrb"):
        load_scene(scene, path)


NO_SPACE = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from MedAILib.errors import OutputError
from MedAILib.results import Label, Segmentation
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import save_scene, save_segmentation, save_surfaces
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Geometry, Volume
grid = Geometry((40, 40, 40), np.eye(4))
labels = np.random.default_rng(0).integers(0, 2, (1, 40, 40, 40), dtype=np.uint8)
with headless_scene() as owner:
    source = add_volume_nodes(owner.scene, Volume(labels.astype(float), grid, "noise"))[0]
    node = write_result(Segmentation(labels, (Label(1, "noise"),), grid), source, Outputs())[0]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    folder = Path(sys.argv[1])
    for save, thing, where in (
        (save_segmentation, node, folder / "out.seg.nrrd"),
        (save_scene, owner.scene, folder / "out.mrb"),
        (save_surfaces, node, folder),
    ):
        try:
            save(thing, where)
        except OutputError as error:
            print(error)
"""


def test_full_disk_gives_one_sentence_and_leaves_older_files(tmp_path):
    pytest.importorskip("resource", reason="file size limits are POSIX")
    older = [tmp_path / name for name in ("out.seg.nrrd", "out.mrb", "noise.stl")]
    for path in older:
        path.write_text("older")
    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    lines = done.stdout.splitlines()
    assert [Path(line.split(" can't")[0]).name for line in lines] == [path.name for path in older]
    assert sorted(tmp_path.iterdir()) == sorted(older)
    assert {path.read_text() for path in older} == {"older"}


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_loaded_volume_lies_where_its_file_says(scene, tmp_path, ending):
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    affine = GRID.ijk_to_ras
    path = tmp_path / f"brain.T1{ending}"
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), tmp_path / "made.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "made.nii")), str(path))
    node = load_volume(scene, path)
    volume = volume_from_nodes([node])
    assert node.GetName() == "brain.T1"
    truth = Volume(voxels[None], Geometry(voxels.shape, affine))
    assert values_by_place(volume) == values_by_place(truth)


def values_by_place(volume):
    """Voxel values by world position, so that grids may be flipped."""
    places = volume.geometry.ras_of(np.indices(volume.geometry.shape_kji).reshape(3, -1).T[:, ::-1])
    return {tuple(np.round(p, 3) + 0.0): v for p, v in zip(places, volume.data.ravel().tolist(), strict=True)}


@pytest.mark.parametrize("name", ["absent.nii.gz", "noise.nii.gz", "noise.nrrd", "picture.png"])
def test_file_that_is_no_image_is_refused_and_leaves_no_node(scene, tmp_path, name):
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 20)
    before = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match=name):
        load_volume(scene, tmp_path / name)
    assert scene.GetNumberOfNodes() == before


def test_truncated_file_is_refused(scene, tmp_path):
    path = tmp_path / "cut.nii.gz"
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.nii\.gz"):
        load_volume(scene, path)
