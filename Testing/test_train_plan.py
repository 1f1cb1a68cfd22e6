"""A segmentation task planned from data, and data checked before training starts."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from balls import SILENT, planned, train, write_cases
from test_dicom_series import ct, enhanced, save

from MedAILib.cli import build_parser, main
from MedAILib.errors import InputError
from MedAILib.files.images import read_image, to_itk
from MedAILib.models.networks import build_network
from MedAILib.training.architectures import levels_for
from MedAILib.training.cases import Case, split_cases
from MedAILib.training.data_folder import open_folder
from MedAILib.training.examine import examine_cases, groups_of, require_sound
from MedAILib.training.kept_for_testing import faults_of_test_part
from MedAILib.training.patients import patients_of
from MedAILib.training.plan import plan_task
from MedAILib.training.plan_grid import GPU, Wishes
from MedAILib.training.task import read_task


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cases(tmp_path / "data")


# --- planning


def test_the_plan_for_the_hippocampus_is_nnunets(shared_data: Path) -> None:
    folder = open_folder(shared_data / "hippocampus")
    facts = examine_cases(folder.cases[::8], folder.labels, SILENT).facts
    task = plan_task("hippocampus", folder, facts, GPU, Wishes())[0]
    assert task.patch == [40, 56, 40]
    assert task.spacing_mm == [1.0, 1.0, 1.0]
    assert task.network["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert 1 not in task.mirror_axes  # anterior and posterior would be taken for each other


def test_thick_slices_are_halved_later_and_have_flat_kernels_until_then() -> None:
    levels = levels_for([0.6, 0.6, 3.6], [256, 256, 16])
    assert levels.strides[1:3] == ((2, 2, 1), (2, 2, 1))
    assert levels.kernels[0] == (3, 3, 1)
    assert levels.kernels[-1] == (3, 3, 3)


def test_a_coarse_axis_takes_the_tenth_percentile_of_spacings(tmp_path: Path) -> None:
    for number, mm in enumerate((4.0, 5.0, 6.0, 7.0)):
        write_cases(tmp_path / f"{number}", 1, (40, 40, 10), mm)
        for name in ("imagesTr", "labelsTr"):
            (tmp_path / "all" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{number}" / name / "case_0.nii.gz").rename(tmp_path / "all" / name / f"c{number}.nii.gz")
    assert planned(tmp_path / "all").spacing_mm == pytest.approx([1, 1, 4.3])


def test_ct_is_clipped_to_what_lies_inside_structures(data: Path) -> None:
    described = json.loads((data / "dataset.json").read_text()) | {"channel_names": {"0": "CT"}}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    (step,) = planned(data).intensity
    assert step["_target_"] == "ScaleIntensityRanged" and step["clip"]
    assert 30 < step["a_min"] < 70 and 130 < step["a_max"] < 170


@pytest.mark.parametrize(("names", "axes"), [(["left lung", "right lung"], [1, 2]), (["liver"], [0, 1, 2])])
def test_sides_with_names_are_not_mirrored(data: Path, names: list[str], axes: list[int]) -> None:
    listed = dict(enumerate([*names, "other"][:2], start=1))
    described = {"labels": {"background": 0, **{name: value for value, name in listed.items()}}}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    assert planned(data).mirror_axes == axes


def test_a_smaller_budget_gives_a_smaller_patch(tmp_path: Path) -> None:
    data = write_cases(tmp_path, 2, (48, 48, 48))
    full, less = planned(data).patch, planned(data, memory_gb=0.05).patch
    assert np.prod(less) < np.prod(full)


@pytest.mark.parametrize("size", [(8, 8, 8), (12, 9, 11)])
def test_tiny_images_have_a_network_that_can_be_built(tmp_path: Path, size: tuple[int, ...]) -> None:
    task = planned(write_cases(tmp_path, 3, size))
    build_network(task.network["_target_"], {k: v for k, v in task.network.items() if k != "_target_"})
    with pytest.raises(InputError, match="too small for a DynUNet"):
        planned(tmp_path, network="DynUNet")


def test_each_choice_is_told_with_its_reason_and_can_be_edited_and_given_back(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "balls",
        "--data",
        data,
        "-o",
        tmp_path / "m",
        "--plan-only",
        "--device",
        "cpu",
        "--set",
        "patch=16,16,16",
    ]
    assert main(list(map(str, words))) == 0
    told = capsys.readouterr().out
    assert "asked for by --set" in told and "the median of all cases" in told
    path = tmp_path / "m.training" / "task.json"
    task = read_task(str(path))
    assert task.patch == [16, 16, 16]
    assert train(path, "--data", data, "-o", tmp_path / "n", "--plan-only", "--set", "epochs=3") == 0
    assert read_task(str(tmp_path / "n.training" / "task.json")) == replace(task, epochs=3)


def test_class_weights_come_from_the_voxels_of_each_class(data: Path, tmp_path: Path) -> None:
    words = ["--plan-only", "--set", "loss=weighted_ce"]
    assert train("balls", "--data", data, "-o", tmp_path / "m", *words) == 0
    background, cap, bowl = read_task(str(tmp_path / "m.training" / "task.json")).class_weights
    assert background < 0.5 and min(cap, bowl) > 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pacth=8", "no such key"),
        ("network=Transformer", "known are DynUNet"),
        ("loss=mse", "dice_ce, dice_focal"),
        ("augmentation=+shear", "no augmentation 'shear'"),
        ("intensity=n5,zscore", "no preprocessing 'n5'; known are zscore"),
        ("epochs=0", "above 0"),
        ("batch=many", "no number"),
        ("patch=16,16", "three whole numbers"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--plan-only", "--set", setting) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"intensity": ["n5"]}, "no preprocessing 'n5'"),
        ({"intensity": "zscore"}, "intensity is 'zscore'; it has to be a list"),
        ({"batch": "two"}, "batch is 'two'; it has to be a whole number"),
    ],
)
def test_a_task_file_with_a_value_of_a_wrong_kind_is_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    task = {"kind": "segmentation", **asdict(planned(data)), **changes}
    (tmp_path / "t.json").write_text(json.dumps(task), encoding="utf-8")
    assert train(tmp_path / "t.json", "--data", data, "-o", tmp_path / "m", "--plan-only") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_a_task_file_may_have_words_for_intensities_and_a_byte_order_mark(data: Path, tmp_path: Path) -> None:
    task = {"kind": "segmentation", **asdict(planned(data)), "intensity": ["denoise", "zscore"]}
    (tmp_path / "t.json").write_text(json.dumps(task), encoding="utf-8-sig")
    described = data / "dataset.json"
    described.write_text(described.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert train(tmp_path / "t.json", "--data", data, "-o", tmp_path / "m", "--plan-only") == 0
    told = read_task(str(tmp_path / "m.training" / "task.json"))
    assert [step["_target_"] for step in told.intensity] == ["MedianSmoothd", "NormalizeIntensityd"]


def test_as_many_folds_are_planned_as_there_are_patients(data: Path) -> None:
    rows = "case,patient\n" + "".join(f"case_{n},p{n // 2}\n" for n in range(6))
    (data / "patients.csv").write_text(rows, encoding="utf-8")
    assert planned(data).folds == 3


# --- data


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: Any = None) -> None:
    image = nibabel.load(path)
    voxels = change(np.array(image.dataobj))
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def with_nan(voxels: np.ndarray) -> np.ndarray:
    voxels[3, 3, 3] = np.nan
    return voxels


def with_value_7(voxels: np.ndarray) -> np.ndarray:
    voxels[3, 3, 3] = 7
    return voxels


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "size": (lambda d: rewrite(d / "labelsTr/case_1.nii.gz", lambda v: v[:-1]), "case_1.*another grid.*resample"),
    "place": (lambda d: rewrite(d / "labelsTr/case_1.nii.gz", lambda v: v, np.diag([1, 1, 2, 1])), "another grid"),
    "value": (lambda d: rewrite(d / "labelsTr/case_2.nii.gz", with_value_7), r"case_2.*value 7.*not in the list"),
    "NaN": (lambda d: rewrite(d / "imagesTr/case_3.nii.gz", with_nan), "case_3.*NaN"),
    "channels": (
        lambda d: rewrite(d / "imagesTr/case_4.nii.gz", lambda v: np.stack([v, v], -1)),
        "case_4.*2 channels",
    ),
    "blank": (
        lambda d: [rewrite(d / f"imagesTr/case_{n}.nii.gz", np.zeros_like) for n in (1, 3)],
        r"case_1\.nii\.gz has the value 0.0 in every voxel.*The same holds for case_3",
    ),
    "two labels": (
        lambda d: (d / "labelsTr/case_1.nii").write_bytes((d / "labelsTr/case_1.nii.gz").read_bytes()),
        r"case_1\.nii and .*case_1\.nii\.gz are labels of one name",
    ),
    "no training": (
        lambda d: (d / "splits_final.json").write_text('[{"train": [], "val": ["case_1"]}]', encoding="utf-8-sig"),
        "splits_final.json has no case for training in fold 0",
    ),
    "no validation": (
        lambda d: (d / "splits_final.json").write_text('[{"train": ["case_1"], "val": []}]', encoding="utf-8"),
        "splits_final.json has no case for validation in fold 0",
    ),
    "slicer's own": (
        lambda d: (d / "labelsTr/case_1.nii.gz").rename(d / "labelsTr/case_1.seg.nrrd"),
        r"^medai: \S+case_1\.seg\.nrrd can't be read; it is damaged, or no segmentation\.$",
    ),
    "DICOM label": (
        lambda d: (d / "labelsTr/case_1.nii.gz").rename(d / "labelsTr/case_1.dcm"),
        r"^medai: \S+case_1\.dcm is DICOM and no DICOM segmentation",
    ),
    "unpaired": (lambda d: (d / "imagesTr/case_5.nii.gz").unlink(), "case_5.*no image"),
    "slice": (
        lambda d: [rewrite(d / name / "case_0.nii.gz", lambda v: v[:, :, :1]) for name in ("imagesTr", "labelsTr")],
        "case_0.*single slice",
    ),
    "class": (
        lambda d: [rewrite(p, lambda v: v * (v == 1)) for p in (d / "labelsTr").iterdir()],
        "No label has the value 2",
    ),
    "empty": (lambda d: [rewrite(p, lambda v: v * 0) for p in (d / "labelsTr").iterdir()], "one class only"),
    "patient": (
        lambda d: (d / "patients.csv").write_text("case,patient\n" + "".join(f"case_{n},a\n" for n in range(6))),
        "of one patient",
    ),
    "images": (
        lambda d: [p.unlink() for n in ("imagesTr", "labelsTr") for p in (d / n).iterdir()],
        "no labelled image",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_data_are_told_before_training_starts(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    spoil, words = FAULTS[fault]
    spoil(data)
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1) == 2
    told = capsys.readouterr().err
    import re

    assert re.search(words, told, re.DOTALL), told
    assert not (tmp_path / "m").exists() and not (tmp_path / "m.training").exists()


def test_channels_on_another_grid_are_remarked_once(data: Path) -> None:
    for path in sorted((data / "imagesTr").iterdir()):
        stem = path.name.removesuffix(".nii.gz")
        image = nibabel.load(path)
        coarse = nibabel.Nifti1Image(np.asarray(image.dataobj)[::2], image.affine @ np.diag([2, 1, 1, 1]))
        nibabel.save(coarse, data / "imagesTr" / f"{stem}_0001.nii.gz")
        path.rename(data / "imagesTr" / f"{stem}_0000.nii.gz")
    (data / "dataset.json").unlink()
    remarks = [remark.text for remark in examine_cases(open_folder(data).cases, None, SILENT).remarks]
    (told,) = [text for text in remarks if "another grid" in text]
    assert "case_0_0001.nii.gz lies on another grid" in told and "The same holds for 5 more cases." in told


def test_labels_stored_as_nearly_whole_numbers_are_rounded(data: Path) -> None:
    rewrite(data / "labelsTr/case_1.nii.gz", lambda v: v.astype(np.float32) * np.float32(1.0000001))
    folder = open_folder(data)
    examined = examine_cases(folder.cases, folder.labels, SILENT)
    assert not examined.faults and examined.facts[1].voxels.keys() == {0, 1, 2}


def test_several_faults_are_a_table_of_files(data: Path) -> None:
    FAULTS["size"][0](data), FAULTS["NaN"][0](data)
    folder = open_folder(data)
    with pytest.raises(InputError, match=r"2 faults:\n  case_1: .*\n  case_3: "):
        require_sound(examine_cases(folder.cases, folder.labels, SILENT), SILENT, folder.faults)


def test_images_of_one_patient_and_copies_stay_on_one_side(data: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (data / name / "copy.nii.gz").write_bytes((data / name / "case_0.nii.gz").read_bytes())
    patients = "case,patient\ncopy,x\n" + "".join(f"case_{n},p{n // 2}\n" for n in range(6))
    (data / "patients.csv").write_text(patients, encoding="utf-8")
    folder = open_folder(data)
    groups = groups_of(examine_cases(folder.cases, folder.labels, SILENT).facts, folder.patients)
    assert groups["copy"] == groups["case_0"] == groups["case_1"] != groups["case_2"]
    for fold in range(3):
        split = split_cases(folder.cases, 3, fold, 1, groups)
        assert not {groups[c.name] for c in split.training} & {groups[c.name] for c in split.validation}


def test_a_prescribed_split_with_a_copy_on_both_sides_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("imagesTr", "labelsTr"):
        (data / name / "copy.nii.gz").write_bytes((data / name / "case_0.nii.gz").read_bytes())
    names = [f"case_{n}" for n in range(6)]
    (data / "splits_final.json").write_text(json.dumps([{"train": names, "val": ["copy"]}]), encoding="utf-8")
    assert train("balls", "--data", data, "-o", tmp_path / "m") == 2
    assert "case_0 and copy are the same image" in capsys.readouterr().err


def copy_of(data: Path, case: str, name: str, label: bool = False) -> None:
    for place in ("images", "labels") if label else ("images",):
        (data / f"{place}Ts").mkdir(exist_ok=True)
        content = (data / f"{place}Tr" / f"{case}.nii.gz").read_bytes()
        (data / f"{place}Ts" / f"{name}.nii.gz").write_bytes(content)


def kept_for_testing(data: Path) -> list[str]:
    folder = open_folder(data)
    examined = examine_cases(folder.cases, folder.labels, SILENT)
    return [fault.text for fault in faults_of_test_part(data, examined.facts, SILENT)]


@pytest.mark.parametrize("label", [True, False])
def test_a_copy_of_an_image_for_training_among_those_for_testing_is_told(data: Path, label: bool) -> None:
    copy_of(data, "case_2", "case_1", label)
    write_cases(data.parent / "others", 1, (18, 18, 18))
    (data.parent / "others/imagesTr/case_0.nii.gz").rename(data / "imagesTs/case_10.nii.gz")
    (told,) = kept_for_testing(data)
    assert "case_1.nii.gz is the same image as case_2, which is for training; remove one of them." in told


def test_a_patient_for_training_among_those_for_testing_is_told(data: Path) -> None:
    write_cases(data.parent / "others", 2, (18, 18, 18))
    for number in range(2):
        copy_of(data.parent / "others", f"case_{number}", f"new_{number}")
    (data.parent / "others/imagesTs").rename(data / "imagesTs")
    rows = [*(f"case_{n},p{n}" for n in range(6)), "new_0,p7", "new_1,p3"]
    (data / "patients.csv").write_text("\n".join(["case,patient", *rows]), encoding="utf-8")
    (told,) = kept_for_testing(data)
    assert "new_1.nii.gz is of the same patient as case_3" in told


def test_what_is_kept_for_testing_stops_the_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(data, "case_2", "other")
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--plan-only") == 2
    assert "other.nii.gz is the same image as case_2" in capsys.readouterr().err


@pytest.mark.parametrize(("numbers", "groups"), [("aab", 2), ("aaa", 3), ("ab ", 3)])
def test_dicom_tells_patients_unless_all_have_one_number(tmp_path: Path, numbers: str, groups: int) -> None:
    cases = []
    for place, number in enumerate(numbers):
        series = ct()
        for image in series:
            image.PatientID = number
        folder = save(series, tmp_path / f"image_{place}")
        cases.append(Case(f"image_{place}", (folder,), folder))
    told = patients_of(tmp_path, cases)
    assert len({told.get(case.name, case.name) for case in cases}) == groups
    assert not set(numbers) & set(told.values())  # a hash


def test_one_dicom_file_is_an_image(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    save([enhanced()], tmp_path / "made")
    (made,) = (tmp_path / "made").iterdir()
    volume = read_image(made.rename(tmp_path / "images" / "heart.dcm"))
    label = to_itk((volume.data[0] > volume.data.mean()).astype(np.uint8), volume.geometry)
    sitk.WriteImage(label, str(tmp_path / "labels" / "heart.nrrd"))
    examined = examine_cases(open_folder(tmp_path).cases, None, SILENT)
    assert not examined.faults and [fact.case.name for fact in examined.facts] == ["heart"]


def test_channels_nrrd_and_dicom_are_found(tmp_path: Path, shared_data: Path) -> None:
    many = write_cases(tmp_path / "many", 2)
    for path in list((many / "imagesTr").iterdir()):
        stem = path.name.removesuffix(".nii.gz")
        (many / "imagesTr" / f"{stem}_0001.nii.gz").write_bytes(path.read_bytes())
        path.rename(many / "imagesTr" / f"{stem}_0000.nii.gz")
    (many / "dataset.json").unlink()
    assert [len(case.images) for case in open_folder(many).cases] == [2, 2]
    mixed = tmp_path / "mixed"
    (mixed / "images").mkdir(parents=True)
    (mixed / "labels").mkdir()
    (mixed / "images" / "mr").symlink_to(shared_data / "mr_brain_dicom" / "13_HCropVolume")
    volume = read_image(mixed / "images" / "mr")
    label = to_itk((volume.data[0] > volume.data.mean()).astype(np.uint8), volume.geometry)
    sitk.WriteImage(label, str(mixed / "labels" / "mr.nrrd"))
    folder = open_folder(mixed)
    examined = examine_cases(folder.cases, None, SILENT)
    assert not examined.faults and examined.facts[0].voxels.keys() == {0, 1}


def test_every_command_in_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    commands = [line.partition("#")[0] for line in text.splitlines() if line.startswith(("medai train", "medai eval"))]
    assert len(commands) >= 4
    for command in commands:
        build_parser().parse_args(command.split()[1:])
