"""Labels as Slicer (`.seg.nrrd`) and DICOM (SEG) save them: each segment's name tells its label value."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk
from balls import SILENT, task_file, train, write_cases
from numpy.typing import NDArray
from test_dicom_seg import result as found_in
from test_dicom_seg import volume as dicom_volume
from test_evaluate import TensModel
from test_scene_storage import GRID, LABELS, LAYERS, SHAPE, source  # noqa: F401

from MedAILib.cli import main
from MedAILib.errors import InputError
from MedAILib.files.dicom_seg import write_dicom_seg
from MedAILib.files.images import read_image
from MedAILib.files.segments import Segments, on_grid, read_segments, segment_names, segmentation_file
from MedAILib.results import Segmentation
from MedAILib.scene.storage import save_segmentation
from MedAILib.scene.write import Outputs, write_result
from MedAILib.training.boxed_images import find_boxed_cases, label_names, labels_there, read_boxed
from MedAILib.training.case_images import read_case
from MedAILib.training.data_folder import find_cases, open_folder
from MedAILib.training.evaluate import evaluate_segmentation
from MedAILib.volume import Geometry, Volume

volume = dicom_volume  # a fixture: a DICOM series on disk


def saved(source: Any, path: Path, layers: NDArray[np.uint16] = LAYERS[:1], labels: Any = LABELS[:2]) -> Path:  # noqa: F811
    """A segmentation as Slicer's own code saves it."""
    result = Segmentation(layers, labels, GRID, provenance={"model": "m", "version": "1"})
    save_segmentation(write_result(result, source, Outputs(table=False))[0], path)
    return path


def as_segments(label: Path, names: dict[int, str], crop: int = 0, layered: bool = False) -> Path:
    """A label map as `.seg.nrrd` beside it, values by another order, perhaps cropped or a layer for each segment."""
    image = nibabel.load(label)
    values = np.asarray(image.dataobj)
    inner = values[crop : values.shape[0] - crop or None]
    layers = [inner == value for value in names]
    data = np.stack(layers).astype(np.uint8) if layered else sum((n + 7) * part for n, part in enumerate(layers))
    array = np.asarray(data, np.uint8)
    out = sitk.GetImageFromArray(array.transpose(3, 2, 1, 0) if layered else array.T, isVector=layered)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    origin = affine @ [crop, 0, 0, 1]
    out.SetOrigin(origin[:3].tolist())
    out.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    out.SetDirection((affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).ravel().tolist())
    for number, name in enumerate(names.values()):
        told = {"Name": name, "ID": f"S{number}", "Extent": "0 1 0 1 0 1"}
        told |= {} if layered else {"LabelValue": str(number + 7), "Layer": "0"}
        for key, value in told.items():
            out.SetMetaData(f"Segment{number}_{key}", value)
    path = label.with_name(label.name.replace(".nii.gz", ".seg.nrrd"))
    sitk.WriteImage(out, str(path), True)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cases(tmp_path / "data")


def test_what_slicer_saved_is_read_as_it_lies(source: Any, tmp_path: Path) -> None:  # noqa: F811
    path = saved(source, tmp_path / "a.seg.nrrd")
    assert segment_names(path) == ("left/part", "Über Größe")
    placed = on_grid(read_segments(path), GRID)
    assert placed is not None
    assert np.array_equal(placed == 1, LAYERS[0] == 1) and np.array_equal(placed == 2, LAYERS[0] == 300)


def test_segments_that_overlap_are_refused_and_layers_that_do_not_are_read(source: Any, tmp_path: Path) -> None:  # noqa: F811
    path = saved(source, tmp_path / "a.seg.nrrd", LAYERS, LABELS)
    with pytest.raises(InputError, match="'Über Größe' and 'overlapping', which overlap"):
        read_segments(path)
    apart = LAYERS.copy()
    apart[1][apart[0] > 0] = 0
    segments = read_segments(saved(source, tmp_path / "b.seg.nrrd", apart, LABELS))
    placed = on_grid(segments, GRID)
    assert placed is not None and np.array_equal(placed == 3, apart[1] == 1)


@pytest.mark.parametrize("layered", [False, True])
def test_cropped_and_turned_grids_are_put_in_their_place(data: Path, layered: bool) -> None:
    label = data / "labelsTr" / "case_0.nii.gz"
    wanted = read_image(label)
    segments = read_segments(as_segments(label, {1: "cap", 2: "bowl"}, crop=2, layered=layered))
    placed = on_grid(segments, wanted.geometry)
    assert segments.labels.shape != wanted.geometry.shape_kji
    assert placed is not None and np.array_equal(placed, wanted.data[0])
    turned = wanted.geometry.ijk_to_ras @ np.array([[0, 0, -1, 19], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    there = on_grid(segments, Geometry((20, 18, 22), turned))
    assert there is not None
    assert np.array_equal(there, wanted.data[0].transpose(2, 0, 1)[::-1])


def test_other_grids_are_none_of_the_image_s(data: Path) -> None:
    label = data / "labelsTr" / "case_0.nii.gz"
    segments = read_segments(as_segments(label, {1: "cap", 2: "bowl"}))
    grid = segments.geometry
    moved, finer, small_one = (grid.ijk_to_ras.copy() for _ in range(3))
    moved[0, 3] += 0.3
    finer[:3, :3] /= 2
    assert on_grid(segments, Geometry(grid.shape_kji, moved)) is None
    assert on_grid(segments, Geometry(grid.shape_kji, finer)) is None
    assert on_grid(segments, Geometry((3, 3, 3), small_one)) is None  # segments reach out of it


def test_names_tell_values_whatever_the_order_of_segments(data: Path) -> None:
    plain = {case.name: read_case(case)[1] for case in find_cases(data)}
    for number, names in enumerate([{1: "cap", 2: "bowl"}, {2: "Bowl", 1: "CAP"}, {2: "bowl"}]):
        label = data / "labelsTr" / f"case_{number}.nii.gz"
        as_segments(label, names, crop=number, layered=number == 1)
        label.unlink()
    cases = find_cases(data)  # beside label maps, since dataset.json names the values
    assert [len(case.values) for case in cases] == [2, 2, 1, 0, 0, 0]
    for case in cases:
        wanted = np.where(plain[case.name] == 1, 0, plain[case.name]) if case.name == "case_2" else plain[case.name]
        assert np.array_equal(read_case(case)[1], wanted), case.name


def test_without_dataset_json_names_get_values_as_they_come(data: Path, tmp_path: Path, capsys: Any) -> None:
    (data / "dataset.json").unlink()
    for number in range(6):
        label = data / "labelsTr" / f"case_{number}.nii.gz"
        as_segments(label, {2: "bowl", 1: "cap"} if number else {1: "cap", 2: "bowl"})
        label.unlink()
    folder = open_folder(data)
    assert folder.labels == {1: "cap", 2: "bowl"} and not folder.faults
    assert {case.values for case in folder.cases[1:]} == {(("bowl", 2), ("cap", 1))}
    words = ["train", "balls", "--data", data, "-o", tmp_path / "m", "--plan-only", "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    assert "the segments' names, as they come" in capsys.readouterr().out


def test_label_maps_beside_segments_want_to_be_named(data: Path, tmp_path: Path, capsys: Any) -> None:
    (data / "dataset.json").unlink()
    label = data / "labelsTr" / "case_3.nii.gz"
    as_segments(label, {1: "cap", 2: "bowl"})
    label.unlink()
    assert train("balls", "--data", data, "-o", tmp_path / "m") == 2
    assert "name the values in dataset.json" in capsys.readouterr().err
    assert not (tmp_path / "m.training").exists()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({1: "cap", 2: "saucer"}, r"case_3\.seg\.nrrd has the segment 'saucer', which is none of cap, bowl"),
        ({1: "cap", 2: "cap"}, "has two segments 'cap'"),
    ],
)
def test_segments_that_no_name_fits_are_told(names: Any, told: str, data: Path, tmp_path: Path) -> None:
    label = data / "labelsTr" / "case_3.nii.gz"
    as_segments(label, names)
    label.unlink()
    with pytest.raises(InputError, match=told):
        find_cases(data)


def test_a_grid_that_is_not_the_image_s_is_told_with_both_files(data: Path, tmp_path: Path, capsys: Any) -> None:
    label = data / "labelsTr" / "case_3.nii.gz"
    image = nibabel.load(label)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([1, 1, 2, 1])), label)
    as_segments(label, {1: "cap", 2: "bowl"})
    label.unlink()
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1) == 2
    error = capsys.readouterr().err
    assert "case_3.seg.nrrd is on another grid than its image" in error and "case_3.nii.gz" in error


def test_training_and_evaluation_are_those_of_label_maps(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    for label in sorted((other / "labelsTr").iterdir()):
        as_segments(label, {2: "bowl", 1: "cap"}, crop=1)
        label.unlink()
    path = task_file(data)
    models = [tmp_path / name / "m" for name in ("maps", "segments")]
    for folder, model in zip((data, other), models, strict=True):
        assert train(path, "--data", folder, "-o", model, "--epochs", 1) == 0
    first, second = ((model / "models" / "model.pt").read_bytes() for model in models)
    assert first == second


def test_a_model_s_own_names_tell_the_values_in_an_evaluation(data: Path) -> None:
    (data / "dataset.json").unlink()
    for label in sorted((data / "labelsTr").iterdir()):
        as_segments(label, {2: "Posterior", 1: "anterior"})
        label.unlink()
    cases = find_cases(data, names={1: "anterior", 2: "posterior"})
    found = evaluate_segmentation(TensModel(), cases, {1: "anterior", 2: "posterior"}, SILENT)
    assert [agreement.overlap.n_ref > 0 for agreement in found.cases[0].agreements.values()] == [True, True]
    assert found.cases[0].agreements[1].overlap.n_ref == int((read_case(cases[0])[1] == 1).sum())


def test_findings_of_a_detector_may_be_segments(data: Path) -> None:
    plain = labels_there(data, find_boxed_cases(data))
    wanted = [read_boxed(case, label_names(data, plain)).boxes for case in find_boxed_cases(data)]
    (data / "dataset.json").unlink()
    for label in sorted((data / "labelsTr").iterdir()):
        as_segments(label, {1: "cap", 2: "bowl"})
        label.unlink()
    cases = find_boxed_cases(data)
    classes = labels_there(data, cases)
    assert set(classes) == {"cap", "bowl"}
    found = [read_boxed(case, label_names(data, classes)).boxes for case in cases]
    assert found == wanted


def _apart(volume: Volume) -> Segmentation:
    """Structures in a DICOM series' voxels that do not overlap."""
    drawn = found_in(volume)
    layers = drawn.layers.copy()
    layers[1][layers[0] > 0] = 0
    return replace(drawn, layers=layers)


def test_dicom_segmentations_lie_where_they_were_drawn(tmp_path: Path, volume: Volume) -> None:
    drawn = _apart(volume)
    path = tmp_path / "drawn.dcm"
    write_dicom_seg(drawn, volume, path)
    assert segmentation_file(path) == path
    segments = read_segments(path)
    placed = on_grid(segments, volume.geometry)
    assert placed is not None
    by_name = {label.name: drawn.mask(label) for label in drawn.labels}
    assert {"Hippocampus", "Something else"} <= set(segments.names) <= set(by_name)
    for number, name in enumerate(segments.names, start=1):
        assert np.array_equal(placed == number, by_name[name]), name


def test_a_folder_with_a_dicom_segmentation_is_one_and_a_series_is_none(tmp_path: Path, volume: Volume) -> None:
    place = tmp_path / "label"
    place.mkdir()
    write_dicom_seg(found_in(volume), volume, place / "seg.dcm")
    assert segmentation_file(place) == place / "seg.dcm"
    (place / ".DS_Store").write_bytes(b"x")
    assert segmentation_file(place) == place / "seg.dcm"
    (place / "more.dcm").write_bytes(b"")
    assert segmentation_file(place) is None
    assert segmentation_file(tmp_path / "absent.nii.gz") is None


def test_damaged_files_are_told_in_a_sentence(source: Any, tmp_path: Path, volume: Volume) -> None:  # noqa: F811
    path = saved(source, tmp_path / "a.seg.nrrd")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.seg\.nrrd"):
        read_segments(path)
    plain = tmp_path / "b.seg.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones(SHAPE, np.uint8)), str(plain))
    with pytest.raises(InputError, match="names no segment"):
        segment_names(plain)
    dicom = tmp_path / "c.dcm"
    write_dicom_seg(found_in(volume), volume, dicom)
    header = pydicom.dcmread(dicom)
    del header.SegmentSequence
    header.save_as(dicom)
    with pytest.raises(InputError, match=r"c\.dcm can't be read as a DICOM segmentation"):
        segment_names(dicom)


def test_a_dicom_segmentation_of_overlapping_segments_names_them(tmp_path: Path, volume: Volume) -> None:
    path = tmp_path / "drawn.dcm"
    write_dicom_seg(found_in(volume), volume, path)
    with pytest.raises(InputError, match="'Hippocampus' and 'Something else', which overlap"):
        read_segments(path)


def _patients(headers: list[Any]) -> list[Any]:
    """Headers with what highdicom wants to find in them."""
    for header in headers:
        for key in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime", "StudyID"):
            if key not in header:
                setattr(header, key, "")
    return headers


def test_what_is_outside_of_all_is_no_segment_of_a_dicom_label_map(tmp_path: Path, volume: Volume) -> None:
    drawn = _apart(volume)
    path = tmp_path / "binary.dcm"
    write_dicom_seg(drawn, volume, path)
    seg = hd.seg.segread(path)
    names, numbers = segment_names(path), list(seg.segment_numbers)
    array = seg.get_volume(combine_segments=True, segment_numbers=numbers)
    made = hd.seg.Segmentation(
        source_images=_patients([pydicom.dcmread(file) for file in sorted((tmp_path / "series").iterdir())]),
        pixel_array=array,
        segmentation_type="LABELMAP",
        segment_descriptions=[seg.get_segment_description(number) for number in numbers],
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    made.save_as(tmp_path / "map.dcm")
    assert segment_names(tmp_path / "map.dcm") == names
    placed, wanted = (on_grid(read_segments(tmp_path / name), volume.geometry) for name in ("map.dcm", "binary.dcm"))
    assert placed is not None and wanted is not None and np.array_equal(placed, wanted) and placed.any()


def test_a_single_slice_fits_however_thick_it_is_told_to_be() -> None:
    labels = np.zeros((1, 3, 4), np.uint16)
    labels[0, 1, 2] = 1
    image, thick, beside = (np.diag([1.0, 1.0, 2.0, 1.0]) for _ in range(3))
    thick[2, 2], beside[2, 3] = 5.0, 0.7
    segments = Segments(("a",), labels, Geometry((1, 3, 4), thick))
    placed = on_grid(segments, Geometry((1, 3, 4), image))
    assert placed is not None and np.array_equal(placed, labels)
    assert on_grid(Segments(("a",), labels, Geometry((1, 3, 4), beside)), Geometry((1, 3, 4), image)) is None
    among = on_grid(segments, Geometry((4, 3, 4), image))
    assert among is not None and np.array_equal(among[0], labels[0]) and not among[1:].any()


def test_voxels_and_segments_are_not_left_out_silently(data: Path) -> None:
    path = as_segments(data / "labelsTr" / "case_0.nii.gz", {1: "cap", 2: "bowl"})
    for number, told in ((4, ("cap", "bowl")), (None, ("cap",))):
        image = sitk.ReadImage(str(path))
        kept = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment0")}
        if number is not None:  # a number between is left out
            moved = [key for key in image.GetMetaDataKeys() if key.startswith("Segment1")]
            kept |= {key.replace("Segment1", f"Segment{number}"): image.GetMetaData(key) for key in moved}
        plain = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))
        plain.CopyInformation(image)
        for key, text in kept.items():
            plain.SetMetaData(key, text)
        sitk.WriteImage(plain, str(path), True)
        assert segment_names(path) == told
    with pytest.raises(InputError, match="voxels of the value 8, which no segment has"):
        read_segments(path)


def test_a_task_tells_the_values_of_names_where_the_data_does_not(data: Path, tmp_path: Path) -> None:
    path = task_file(data)
    assert train(path, "--data", data, "-o", tmp_path / "maps", "--epochs", 1) == 0
    (data / "dataset.json").unlink()
    for label in sorted((data / "labelsTr").iterdir()):
        as_segments(label, {2: "bowl", 1: "cap"})  # the second comes first
        label.unlink()
    assert train(path, "--data", data, "-o", tmp_path / "segments", "--epochs", 1) == 0
    first, second = ((tmp_path / name / "models" / "model.pt").read_bytes() for name in ("maps", "segments"))
    assert first == second
    started = open_folder(data, None, {1: "bowl", 2: "cap"})
    assert {case.values for case in started.cases} == {(("bowl", 1), ("cap", 2))}
    beside = open_folder(data, None, {1: "bowl"})
    assert {case.values for case in beside.cases} == {(("bowl", 1), ("cap", 2))} and beside.labels == {
        1: "bowl",
        2: "cap",
    }


def test_a_detector_s_classes_are_matched_by_name(data: Path) -> None:
    named = label_names(data, {"bowl": ("bowl", "1"), "cap": ("cap", "2")})
    (data / "dataset.json").unlink()
    for label in sorted((data / "labelsTr").iterdir()):
        as_segments(label, {1: "cap", 2: "bowl"})
        label.unlink()
    named = label_names(data, {"bowl": ("bowl", "1"), "cap": ("cap", "2")})  # a model's, in another order
    for case in find_boxed_cases(data):
        image = read_boxed(case, named)
        by_name = {box.label: box for box in image.boxes}
        assert by_name["cap"].low_ijk[2] > by_name["bowl"].low_ijk[2]  # the ball's upper half
    with pytest.raises(InputError, match="the segment 'bowl', which is none of the classes cap"):
        read_boxed(find_boxed_cases(data)[0], label_names(data, {"cap": ("cap",)}))


def test_names_that_differ_little_are_not_merged(data: Path) -> None:
    told = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "L-1": 1, "L 1": 2}}
    (data / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    label = data / "labelsTr" / "case_0.nii.gz"
    as_segments(label, {1: "L-1", 2: "L 1"})
    label.unlink()
    assert find_cases(data)[0].values == (("L-1", 1), ("L 1", 2))
    as_segments(data / "labelsTr" / "case_1.nii.gz", {1: "L_1"})
    (data / "labelsTr" / "case_1.nii.gz").unlink()
    with pytest.raises(InputError, match="segment 'L_1', which is none of L-1, L 1"):
        find_cases(data)
    told["labels"] = {"background": 0, "left lung": 1, "x": 2}
    (data / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    for number in (0, 1):
        (data / "labelsTr" / f"case_{number}.seg.nrrd").unlink()
        (data / "imagesTr" / f"case_{number}.nii.gz").unlink()
    label = data / "labelsTr" / "case_2.nii.gz"
    as_segments(label, {1: "left lung", 2: "Left_Lung"})
    label.unlink()
    with pytest.raises(InputError, match="'left lung' and 'Left_Lung', which are one"):
        find_cases(data)


def test_pictures_have_no_grid_to_be_off(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((12, 10), np.uint8)).save(tmp_path / "data" / "images" / "a.png")
    values = np.zeros((1, 12, 10), np.uint8)
    values[0, 3:6, 2:4] = 7
    label = sitk.GetImageFromArray(values)
    label.SetSpacing((0.5, 0.5, 3.0))
    for key, text in {"Name": "spot", "LabelValue": "7", "Layer": "0"}.items():
        label.SetMetaData(f"Segment0_{key}", text)
    sitk.WriteImage(label, str(tmp_path / "data" / "labels" / "a.seg.nrrd"))
    (case,) = find_cases(tmp_path / "data")
    assert np.array_equal(read_case(case)[1], (values == 7).astype(np.uint16))
