"""A DICOM report of a classification reads back with its findings, probabilities and decision."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from test_dicom_series import ct, enhanced, save

from MedAILib.errors import InputError
from MedAILib.files.dicom import read_dicom
from MedAILib.files.dicom_sr import write_dicom_sr
from MedAILib.results import Classification, Code, Place
from MedAILib.volume import Volume


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return read_dicom(save(ct(), tmp_path / "series"))


def result(volume: Volume, rows: int = 1, unsure_below: float = 0.0) -> Classification:
    k, j, i = volume.geometry.shape_kji
    places = tuple(Place("slice", ((n, n + 1), (0, j), (0, i)), n, "K", 2.0 * n) for n in range(rows))
    probabilities = np.tile([0.25, 0.75], (rows, 1))
    return Classification(
        ("benign", "malignant, of a very long name that no code value can hold"),
        "binary",
        probabilities,
        np.log(probabilities),
        (0.5, 0.5),
        places if rows > 1 else (Place("image", ((0, k), (0, j), (0, i))),),
        volume.geometry,
        unsure_below,
        provenance={"model": "breast", "version": "1.2", "sha256": "a" * 64},
    )


def groups(path: Path) -> list[hd.sr.MeasurementsAndQualitativeEvaluations]:
    report = hd.sr.srread(path)
    return report.content.get_image_measurement_groups()


def test_probabilities_are_measurements_of_their_findings(tmp_path: Path, volume: Volume) -> None:
    write_dicom_sr(result(volume), volume, tmp_path / "sr.dcm")
    found = groups(tmp_path / "sr.dcm")
    assert [group.finding_type.meaning for group in found] == list(result(volume).classes)
    values = [group.get_measurements(codes.DCM.Probability)[0].value for group in found]
    assert values == pytest.approx([0.25, 0.75])
    for group in found:
        assert [item.value.meaning for item in group.get_qualitative_evaluations()] == [result(volume).classes[1]]


def test_a_class_with_a_code_is_found_by_it(tmp_path: Path, volume: Volume) -> None:
    code = Code("SCT", "86049000", "Malignant neoplasm, primary")
    write_dicom_sr(replace(result(volume), codes=(None, code)), volume, tmp_path / "sr.dcm")
    benign, malignant = (groups(tmp_path / "sr.dcm")[n].finding_type for n in range(2))
    assert (malignant.value, malignant.scheme_designator) == ("86049000", "SCT")
    assert (benign.value, benign.scheme_designator) == ("benign", "99MEDAI")


def test_report_belongs_to_the_study_and_says_it_is_for_research(tmp_path: Path, volume: Volume) -> None:
    write_dicom_sr(result(volume), volume, tmp_path / "sr.dcm")
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert (report.StudyInstanceUID, report.PatientID) == ("1.2.3", "secret")
    assert report.VerificationFlag == "UNVERIFIED"
    assert "research use only" in report.SeriesDescription
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(evidence.ReferencedSOPSequence) == volume.geometry.shape_kji[0]


def test_not_sure_is_said(tmp_path: Path, volume: Volume) -> None:
    write_dicom_sr(result(volume, unsure_below=0.9), volume, tmp_path / "sr.dcm")
    (decision,) = groups(tmp_path / "sr.dcm")[0].get_qualitative_evaluations()
    assert decision.value.meaning == "Not sure"


def test_each_slice_is_a_group_on_its_own_image(tmp_path: Path, volume: Volume) -> None:
    write_dicom_sr(result(volume, rows=3), volume, tmp_path / "sr.dcm")
    found = groups(tmp_path / "sr.dcm")
    assert len(found) == 6
    files = volume.provenance["files"].split("\n")
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files[:3]]
    assert [group.source_images[0].referenced_sop_instance_uid for group in found] == list(np.repeat(uids, 2))


def test_multi_frame_files_have_reports_too(tmp_path: Path) -> None:
    path = tmp_path / "enhanced.dcm"
    enhanced().save_as(path)
    volume = read_dicom(path)
    write_dicom_sr(result(volume), volume, tmp_path / "sr.dcm")
    assert len(groups(tmp_path / "sr.dcm")) == 2


def test_what_is_no_dicom_is_refused(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(InputError, match=r"does not come from DICOM files.*\.json"):
        write_dicom_sr(result(volume), replace(volume, provenance={}), tmp_path / "sr.dcm")
    assert not (tmp_path / "sr.dcm").exists()
