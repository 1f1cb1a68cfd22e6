"""A DICOM report of findings reads back with their places in the patient, codes and probabilities."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from bundles import threshold_bundle
from pydicom.sr.codedict import codes
from test_dicom_series import ct, image, save

from MedAILib.cli import main
from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError
from MedAILib.files.dicom import read_dicom
from MedAILib.files.dicom_findings import write_findings_sr
from MedAILib.results import Code
from MedAILib.volume import Volume

MASS = Code("SCT", "4147007", "Mass")
SAID = {"model": "finder", "version": "1.2", "sha256": "a" * 64}


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return read_dicom(save(ct(), tmp_path / "series"))


@pytest.fixture
def picture(tmp_path: Path) -> Volume:
    """An ultrasound picture, which lies nowhere in the patient."""
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    dataset = image("1.2.840.10008.5.1.4.1.1.6.1", pixels, Modality="US", PixelSpacing=[0.5, 0.25])
    path = tmp_path / "picture.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return read_dicom(path)


def findings(volume: Volume, *boxes: Box) -> Detections:
    return Detections(boxes, ("mass", "cyst"), volume.geometry, 0.25, SAID, (MASS, None))


def groups(path: Path) -> list:
    return hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()


def test_a_finding_lies_in_the_patient_where_its_box_is(tmp_path: Path, volume: Volume) -> None:
    box = Box("mass", 0.75, (0.5, 0.5, 1.5), (3.5, 2.5, 4.5))
    found = findings(volume, box)
    write_findings_sr(found, volume, tmp_path / "sr.dcm")
    (group,) = groups(tmp_path / "sr.dcm")
    surface = group.roi.graphic_data
    assert len(surface) == 6 and group.roi.frame_of_reference_uid == "1.2.9"
    corners = np.unique(np.round(np.concatenate(surface), 3), axis=0)
    expected = found.corners_ras(box) * (-1, -1, 1)
    assert np.allclose(corners, np.unique(np.round(expected, 3), axis=0), atol=2e-3)
    for face in surface:  # each is closed, and lies in one plane of the box
        assert len(face) == 5 and np.allclose(face[0], face[-1])
    slices = [np.array(ct()[n].ImagePositionPatient, float) for n in (0, 1)]
    normal = slices[1] - slices[0]
    heights = (corners - slices[0]) @ normal / (normal @ normal)  # in slices, by the source files themselves
    assert np.allclose(sorted(heights), [1.5] * 4 + [4.5] * 4, atol=1e-3)


def test_class_code_probability_and_edges_are_told(tmp_path: Path, volume: Volume) -> None:
    boxes = (Box("cyst", 0.5, (0, 0, 0), (1, 1, 1)), Box("mass", 0.75, (0.5, 0.5, 1.5), (3.5, 2.5, 4.5)))
    found = findings(volume, *boxes)
    write_findings_sr(found, volume, tmp_path / "sr.dcm")
    mass, cyst = groups(tmp_path / "sr.dcm")  # the surest first
    assert (mass.finding_type.value, mass.finding_type.scheme_designator) == ("4147007", "SCT")
    assert (cyst.finding_type.value, cyst.finding_type.scheme_designator) == ("cyst", "99MEDAI")
    assert mass.get_measurements(codes.DCM.Probability)[0].value == pytest.approx(0.75)
    told = [mass.get_measurements(name)[0] for name in (codes.SCT.Length, codes.SCT.Width, codes.SCT.Depth)]
    edges = sorted(found.size_mm(boxes[1]), reverse=True)
    assert [one.value for one in told] == pytest.approx(edges, abs=1e-3)
    assert all(one.unit.value == "mm" for one in told)


def test_pydicom_reads_a_report_of_the_study_with_its_evidence(tmp_path: Path, volume: Volume) -> None:
    write_findings_sr(findings(volume, Box("mass", 0.7, (0, 0, 0), (2, 2, 2))), volume, tmp_path / "sr.dcm")
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage" and report.Modality == "SR"
    assert (report.StudyInstanceUID, report.PatientID, report.VerificationFlag) == ("1.2.3", "secret", "UNVERIFIED")
    assert report.SeriesDescription == "Findings by finder (research use only)"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(evidence.ReferencedSOPSequence) == volume.geometry.shape_kji[0]


def test_classes_without_a_finding_are_said_to_be_absent(tmp_path: Path, volume: Volume) -> None:
    write_findings_sr(findings(volume), volume, tmp_path / "sr.dcm")
    assert groups(tmp_path / "sr.dcm") == []
    said = hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert [group.finding_type.meaning for group in said] == ["Mass", "cyst"]
    assert {group.get_qualitative_evaluations()[0].value.meaning for group in said} == {"Absent"}


def test_in_a_picture_a_finding_is_a_rectangle_of_its_pixels(tmp_path: Path, picture: Volume) -> None:
    found = findings(picture, Box("mass", 0.7, (1.5, 0.5, -0.5), (5.5, 3.5, 0.5)))
    write_findings_sr(found, picture, tmp_path / "sr.dcm")
    report = hd.sr.srread(tmp_path / "sr.dcm")
    (group,) = report.content.get_planar_roi_measurement_groups()
    corners = np.asarray(group.roi.value)
    assert corners.min(axis=0).tolist() == [2, 1] and corners.max(axis=0).tolist() == [6, 4]
    assert not group.get_measurements(codes.SCT.Depth)


def test_what_is_no_dicom_or_another_image_is_refused(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(InputError, match=r"does not come from DICOM files.*\.json"):
        write_findings_sr(findings(volume), replace(volume, provenance={}), tmp_path / "sr.dcm")
    cut = volume.cropped((slice(0, 2), slice(0, 4), slice(0, 5)))
    with pytest.raises(InputError, match="not of"):
        write_findings_sr(findings(cut), volume, tmp_path / "sr.dcm")
    assert not (tmp_path / "sr.dcm").exists()


def test_the_command_writes_a_report_for_dicom_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threshold_bundle(tmp_path / "model", 50.0, spacing_mm=None)
    save(ct(), tmp_path / "series")
    words = ["detect", tmp_path / "series", "-m", tmp_path / "model", "--quiet", "-o"]
    assert main([str(word) for word in [*words, tmp_path / "findings.dcm"]]) == 0
    assert main([str(word) for word in [*words, tmp_path / "all"]]) == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == {f"findings.{x}" for x in ("json", "csv", "dcm")} | {
        "scene.mrb"
    }
    told = json.loads((tmp_path / "all" / "findings.json").read_text(encoding="utf-8"))["findings"]
    with (tmp_path / "all" / "findings.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(told)
    assert len(groups(tmp_path / "findings.dcm")) == len(told) > 0
    (tmp_path / "scan").mkdir()
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.eye(9)[..., None] * 100, np.eye(4)), tmp_path / "scan.nii.gz")
    words[1] = tmp_path / "scan.nii.gz"
    assert main([str(word) for word in [*words, tmp_path / "other.dcm"]]) == 2
    assert "give a DICOM series" in capsys.readouterr().err and not (tmp_path / "other.dcm").exists()
