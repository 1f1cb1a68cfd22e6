"""A DICOM SEG of a result reads back as the same voxels in the same place, and says what made it."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from test_dicom_series import ct, enhanced, save

from MedAILib.errors import InputError, OutputError
from MedAILib.files.dicom import read_dicom
from MedAILib.files.dicom_seg import write_dicom_seg
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.volume import Volume

ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
RIGHT_HIPPOCAMPUS = Terminology(ANATOMY, Code("SCT", "5366008", "Hippocampus"), Code("SCT", "24028007", "Right"))
LABELS = (
    Label(1, "Hippocampus", (1.0, 0.5, 0.0), RIGHT_HIPPOCAMPUS),
    Label(5, "Something else", layer=1),
    Label(7, "Not there"),
)


def result(volume: Volume) -> Segmentation:
    """Two overlapping structures and one that was not found."""
    layers = np.zeros((2, *volume.geometry.shape_kji), np.uint8)
    layers[0, 1:4, 1:3, :2] = 1
    layers[1, 2:5, 1:, 1:4] = 5
    provenance = {"model": "hippocampus", "version": "1.2.0", "sha256": "a" * 64}
    return Segmentation(layers, LABELS, volume.geometry, provenance=provenance)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return read_dicom(save(ct(), tmp_path / "series"))


def read_back(path: Path, volume: Volume) -> np.ndarray:
    """Segments (K, J, I, S) of a SEG file at the voxels of `volume`, found by world position alone."""
    seg = hd.seg.segread(path)
    read = seg.get_volume()
    ijk = np.indices(volume.geometry.shape_kji)[::-1].reshape(3, -1).T
    lps = volume.geometry.ras_of(ijk) * (-1, -1, 1)
    index = np.linalg.inv(read.affine) @ np.column_stack([lps, np.ones(len(lps))]).T
    index = np.round(index[:3]).astype(int)
    inside = ((index >= 0) & (index < np.array(read.spatial_shape)[:, None])).all(axis=0)
    values = np.zeros((len(ijk), read.array.shape[-1]), np.uint8)
    values[inside] = read.array[tuple(index[:, inside])]
    return values.reshape(*volume.geometry.shape_kji, -1)


def test_voxels_come_back_in_their_place(tmp_path: Path, volume: Volume) -> None:
    segmentation = result(volume)
    write_dicom_seg(segmentation, volume, tmp_path / "seg.dcm")
    back = read_back(tmp_path / "seg.dcm", volume)
    assert back.shape[-1] == 2
    for n in range(2):
        assert (back[..., n] == segmentation.mask(LABELS[n])).all()


def test_header_says_what_made_it_and_that_it_is_for_research(tmp_path: Path, volume: Volume) -> None:
    write_dicom_seg(result(volume), volume, tmp_path / "seg.dcm")
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert seg.ContentQualification == "RESEARCH"
    assert seg.PatientID == "secret"
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("1.2.3", "1.2.9")
    first, second = seg.SegmentSequence
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("hippocampus", "1.2.0")
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "5366008"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert second.SegmentLabel == "Something else"
    assert hd.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb() == pytest.approx(
        (255, 128, 0), abs=2
    )


def test_multiframe_source_gets_its_own_frames(tmp_path: Path) -> None:
    enhanced().save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    volume = read_dicom(tmp_path / "enhanced.dcm")
    write_dicom_seg(result(volume), volume, tmp_path / "seg.dcm")
    assert (read_back(tmp_path / "seg.dcm", volume)[..., 0] == result(volume).mask(LABELS[0])).all()


def test_real_series_works(tmp_path: Path, shared_data: Path) -> None:
    volume = read_dicom(shared_data / "mr_brain_dicom" / "13_HCropVolume")
    write_dicom_seg(result(volume), volume, tmp_path / "seg.dcm")
    assert (read_back(tmp_path / "seg.dcm", volume)[..., 1] == result(volume).mask(LABELS[1])).all()


def test_image_that_is_no_dicom_is_refused(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(InputError, match="does not come from DICOM files"):
        write_dicom_seg(result(volume), replace(volume, provenance={}), tmp_path / "seg.dcm")


def test_source_file_that_is_gone_is_named(tmp_path: Path, volume: Volume) -> None:
    Path(volume.provenance["files"].split("\n")[2]).unlink()
    with pytest.raises(InputError, match=r"IM06_2, a slice of series, is gone"):
        write_dicom_seg(result(volume), volume, tmp_path / "seg.dcm")


def test_empty_result_is_refused(tmp_path: Path, volume: Volume) -> None:
    empty = replace(result(volume), layers=np.zeros((2, *volume.geometry.shape_kji), np.uint8))
    with pytest.raises(InputError, match="no structure was found"):
        write_dicom_seg(empty, volume, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_other_grid_is_refused(tmp_path: Path, volume: Volume) -> None:
    cropped = volume.cropped((slice(0, 5), slice(0, 4), slice(0, 5)))
    with pytest.raises(InputError, match="not on the grid of series"):
        write_dicom_seg(result(cropped), volume, tmp_path / "seg.dcm")


def test_absent_folder_is_told(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_dicom_seg(result(volume), volume, tmp_path / "absent" / "seg.dcm")
