"""Classifiers of sequences, taught on made hearts that beat: time is what they use, and they run everywhere."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicer
import slicer.util
import torch
from clips import (
    BOX,
    BOX_FRAMES,
    FRAMES,
    SIDE,
    clip_folders,
    frame_folders,
    frame_network,
    heart_task,
    hearts,
    volume_clips,
    write_clip,
)
from pydicom.uid import MRImageStorage, UltrasoundMultiFrameImageStorage
from test_dicom_series import image as dicom_image

from MedAILib.cli import main
from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError
from MedAILib.files.clips import read_clip
from MedAILib.files.images import read_image
from MedAILib.inference.looks import frames_taken
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.open import open_model
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import ClassifyOptions
from MedAILib.training.augment_images import Augmentation
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import train_classifier
from MedAILib.training.lesson import Bench, new_network
from MedAILib.training.task import read_task
from MedAILib.volume import Geometry, Volume

SILENT = Progress()


def written(folder: Path, content: dict[str, object]) -> Path:
    path = folder / "task.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def task_of(folder: Path, **changes: Any) -> ClassificationTask:
    task = read_task(str(written(folder, heart_task(**changes))))
    assert isinstance(task, ClassificationTask)
    return task


def trained(folder: Path, data: Callable[[Path, int, int], Path], **changes: Any) -> Path:
    """The bundle that the command makes of 100 hearts, with 24 others to choose by."""
    data(folder / "data" / "train", 100, 1)
    data(folder / "data" / "val", 24, 2)
    task = written(folder, heart_task(**changes))
    words = ["train", str(task), "--data", str(folder / "data"), "-o", str(folder / "model"), "--device", "cpu"]
    assert main([*words, "--quiet"]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("recurrent"), clip_folders)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network of a frame, the same hearts and the same teaching, without what goes over frames."""
    return trained(tmp_path_factory.mktemp("single"), frame_folders, frames=0, network=frame_network(2))


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folders(tmp_path_factory.mktemp("unseen"), 60, 3)


def said(model: Path, paths: list[Path]) -> list[str]:
    opened = open_model(model, "cpu")
    return [opened.run(read_image(path), ClassifyOptions(), SILENT).likeliest for path in paths]


def accuracy(model: Path, folder: Path) -> float:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = said(model, paths)
    return float(np.mean([label == path.parent.name for label, path in zip(found, paths, strict=True)]))


def test_the_recurrent_classifier_tells_how_hearts_beat(recurrent: Path, unseen: Path) -> None:
    assert accuracy(recurrent, unseen) >= 0.95


def test_the_training_reports_clips_with_a_frame_of_each_of_the_worst(recurrent: Path) -> None:
    folder = recurrent.with_name("model.training") / "validation"
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cases"] == 24
    assert (folder / "report.html").read_text(encoding="utf-8").count('src="data:image/png;base64,') == 3 + 5


def test_a_classifier_of_single_frames_can_only_guess(single: Path, tmp_path: Path) -> None:
    assert 0.35 <= accuracy(single, frame_folders(tmp_path, 60, 3)) <= 0.65


def test_a_heart_that_stands_still_has_no_ejection(recurrent: Path, tmp_path: Path) -> None:
    normal = [clip for clip, label in hearts(80, 3) if label == "normal"]
    beating = [write_clip(clip, tmp_path / f"beating{n}.nii") for n, clip in enumerate(normal)]
    still = [
        write_clip(np.repeat(clip[:1], FRAMES, axis=0), tmp_path / f"still{n}.nii") for n, clip in enumerate(normal)
    ]
    counts = [said(recurrent, paths).count("normal") / len(normal) for paths in (beating, still)]
    assert counts[0] >= 0.9 and counts[1] <= 0.5


def classified(model: Path, clip: Path, folder: Path) -> dict[str, Any]:
    out = folder / "found.json"
    assert main(["classify", str(clip), "-m", str(model), "-o", str(out), "--device", "cpu", "--quiet"]) == 0
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_the_command_classifies_a_clip_in_one_file_or_as_pictures(recurrent: Path, tmp_path: Path) -> None:
    clip, label = hearts(1, 3)[0]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n, frame in enumerate(clip):
        sitk.WriteImage(sitk.GetImageFromArray(frame), str(pictures / f"frame{n}.png"))
    paths = [write_clip(clip, tmp_path / "four.nii.gz"), write_clip(clip, tmp_path / "three.nrrd", False), pictures]
    found = [classified(recurrent, path, tmp_path) for path in paths]
    assert [one["predicted"] for one in found] == [label] * 3
    likely = [one["classes"][0]["probability"] for one in found]
    assert likely == pytest.approx([likely[0]] * 3, abs=1e-6)


def test_a_sequence_node_is_classified_as_its_file_is(
    recurrent: Path, tmp_path: Path, classify_session: Any, client: Any
) -> None:
    clip, label = hearts(1, 3)[0]
    scene = classify_session.scene
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for n, frame in enumerate(clip):
        volume = classify_session.add_volume(f"frame {n}", shape_kji=(1, SIDE, SIDE))
        slicer.util.updateVolumeFromArray(volume, frame[None])
        sequence.SetDataNodeAtValue(volume, str(n))
        scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    table = classify_session.logic(client).classify(sequence, str(recurrent), "cpu")[0].GetTable()
    cells = {table.GetColumnName(n): table.GetColumn(n) for n in range(table.GetNumberOfColumns())}
    likely = [cells["Probability"].GetVariantValue(n).ToDouble() for n in range(2)]
    filed = classified(recurrent, write_clip(clip, tmp_path / "clip.nii.gz"), tmp_path)
    assert filed["predicted"] == label
    assert likely == pytest.approx([one["probability"] for one in filed["classes"]], abs=1e-5)


def test_a_report_is_written_of_clips_with_labels(recurrent: Path, tmp_path: Path) -> None:
    data = clip_folders(tmp_path / "data", 8, 5)
    words = ["evaluate", "-m", str(recurrent), "--data", str(data), "-o", str(tmp_path / "report"), "--device", "cpu"]
    assert main([*words, "--quiet"]) == 0
    found = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert found["cases"] == 8 and found["accuracy"] >= 0.85
    assert (tmp_path / "report" / "report.html").is_file()


def test_the_card_says_what_becomes_of_frames(recurrent: Path) -> None:
    card = " ".join((recurrent / "docs" / "README.md").read_text(encoding="utf-8").split())
    assert f"a sequence of at least 2 pictures, of which {FRAMES} are taken, evenly spaced" in card
    assert "MedAI alone runs this model" in card
    classes = open_model(recurrent, "cpu").spec.classes
    assert classes is not None and (classes.sequence, classes.frames, classes.dimensions) == (True, FRAMES, 2)


def test_longer_and_shorter_clips_are_seen_whole(recurrent: Path) -> None:
    assert frames_taken(23, 12) == list(range(0, 23, 2))
    assert frames_taken(3, 6) == [0, 0, 1, 1, 2, 2]
    assert frames_taken(5, 0) == [0, 1, 2, 3, 4]
    model: Any = open_model(recurrent, "cpu")

    def scores(clip: Any) -> Any:
        volume = Volume(clip[:, None], Geometry((1, SIDE, SIDE), np.eye(4)), "clip")
        return model.run(volume, ClassifyOptions(), SILENT).scores

    clip = hearts(1, 4, frames=23)[0][0]
    assert np.allclose(scores(clip), scores(clip[::2]), atol=1e-5)


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    frame = torch.rand(4, 1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    wanted = {"flip": [0, 1], "rotate": 40, "scale": 0.3, "translate": 0.2, "gamma": 0.5, "blur": 1, "elastic": 0.1}
    artefacts = {"bias_field": 1, "ghosting": 1, "spike": 1, "low_resolution": 0.5}
    change = Augmentation(wanted | artefacts, True)
    change.reseed(1)
    clips = change(frame.expand(4, 5, 1, SIDE, SIDE))
    assert clips.shape == (4, 5, 1, SIDE, SIDE)
    assert torch.allclose(clips, clips[:, :1].expand_as(clips), atol=1e-4)
    assert not torch.allclose(clips[0], clips[1], atol=0.5)
    noisy = Augmentation({"noise": 1}, True)
    noisy.reseed(1)
    found = noisy(frame.expand(4, 5, 1, SIDE, SIDE))
    assert any(not torch.allclose(one[0], one[1], atol=0.05) for one in found)


def test_a_stopped_training_of_clips_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    task = task_of(tmp_path, epochs=2, distil_epochs=1, networks=2, folds=2, batch=4, recurrent="lstm")
    data = read_data(task, clip_folders(tmp_path / "data", 8, 1), SILENT)
    assert data.images.shape == (8, FRAMES, 1, SIDE, SIDE)
    whole = train_classifier(task, data, Bench(tmp_path / "whole", "cpu", False, ""), SILENT)

    class InSecond(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            if text.startswith("Fold 1 network 0, epoch 2"):
                self.cancel()
            super().step(done, total, text)

    bench = Bench(tmp_path / "parts", "cpu", False, "")
    with pytest.raises(Cancelled):
        train_classifier(task, data, bench, InSecond())
    resumed = train_classifier(task, data, replace(bench, resume=True), SILENT)
    assert all(torch.equal(value, resumed.weights[key]) for key, value in whole.weights.items())


def test_several_networks_are_shipped_as_the_mean_over_mirrored_clips() -> None:
    network = new_network(heart_task()["network"]).eval()  # type: ignore[arg-type]
    clips = torch.rand(2, 4, 1, SIDE, SIDE)
    with torch.inference_mode():
        mean = MeanClassifier([network], [0], sequence=True)(clips).softmax(dim=1)
        both = [network(clips).softmax(dim=1), network(clips.flip(3)).softmax(dim=1)]
    assert torch.allclose(mean, torch.stack(both).mean(dim=0), atol=1e-5)


def cine_files(clip: Any, folder: Path) -> Path:
    """A DICOM file for each frame, all at one place; names are in another order than time."""
    folder.mkdir(parents=True)
    for n, frame in enumerate(clip):
        dataset = dicom_image(
            MRImageStorage,
            frame.astype(np.int16),
            Modality="MR",
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[10, 20, 30],
            PixelSpacing=[1.5, 1.5],
            TriggerTime=40 * n,
            InstanceNumber=1,
        )
        dataset.save_as(folder / f"{99 - n}.dcm", enforce_file_format=True)
    return folder


def film(clip: Any, path: Path) -> Path:
    dataset = dicom_image(UltrasoundMultiFrameImageStorage, clip, Modality="US", NumberOfFrames=len(clip))
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_clips_are_read_in_order_of_time(tmp_path: Path) -> None:
    clip = hearts(1, 3)[0][0]
    for path in (cine_files(clip, tmp_path / "cine"), film(clip, tmp_path / "film.dcm")):
        volume = read_clip(path)
        assert (volume.data == clip[None]).all()
    assert np.allclose(read_clip(tmp_path / "cine").geometry.ijk_to_ras[:3, 3], (-10, -20, 30))


def test_dicom_clips_in_a_folder_for_each_class_are_learnt_from(tmp_path: Path) -> None:
    for n, (clip, label) in enumerate(hearts(8, 1)):
        if n < 4:
            cine_files(clip, tmp_path / "data" / label / f"heart{n}")
        else:
            film(clip, tmp_path / "data" / label / "films" / f"heart{n}.dcm")
    data = read_data(task_of(tmp_path, folds=2), tmp_path / "data", SILENT)
    assert data.images.shape[:2] == (8, FRAMES)
    assert sorted(data.names)[0] == "normal/films/heart4.dcm"


def test_an_ultrasound_film_in_colour_is_classified_as_grey(recurrent: Path, tmp_path: Path) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "examples_ybr_color.dcm"
    assert read_clip(path).data.shape == (3, 30, 240, 320)
    out = tmp_path / "found.json"
    assert main(["classify", str(path), "-m", str(recurrent), "-o", str(out), "--device", "cpu", "--quiet"]) == 0
    assert len(json.loads(out.read_text(encoding="utf-8"))["classes"]) == 2


def one_class(folder: Path) -> None:
    for path in (folder / "reduced").iterdir():
        path.unlink()
    (folder / "reduced").rmdir()


def single_frame(folder: Path) -> None:
    write_clip(hearts(1, 9)[0][0][:1], folder / "normal" / "heart000.nii.gz")


def picture(folder: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(hearts(1, 9)[0][0][0]), str(folder / "normal" / "still.png"))


def volumes_among(folder: Path) -> None:
    volume = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 99, (5, SIDE, SIDE)).astype(np.uint8))
    sitk.WriteImage(sitk.JoinSeries([volume, volume + 1]), str(folder / "normal" / "heart000.nii.gz"))


def mixed_sizes(folder: Path) -> None:
    place = folder / "normal" / "frames"
    place.mkdir()
    for n, side in enumerate((SIDE, SIDE, SIDE - 4)):
        frame = np.random.default_rng(n).integers(0, 99, (side, side)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(frame), str(place / f"{n}.png"))


def twice(folder: Path) -> None:
    clip = hearts(1, 9)[0][0]
    write_clip(clip, folder / "normal" / "heart000.nii.gz")
    write_clip(clip, folder / "reduced" / "heart001.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (one_class, "images of one class only"),
        (single_frame, r"normal/heart000\.nii\.gz is a single frame .* give all its frames"),
        (picture, r"still\.png is a single frame, but a sequence is wanted"),
        (volumes_among, r"normal/heart000\.nii\.gz is a sequence of volumes .* sequences of pictures are wanted"),
        (mixed_sizes, r"2\.png is .* a sequence has frames of one size"),
        (twice, "are the same image under two labels"),
    ],
)
def test_clips_that_can_not_be_learnt_from_are_refused_in_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    data = clip_folders(tmp_path / "data", 6, 1)
    spoil(data)
    with pytest.raises(InputError, match=words) as caught:
        read_data(task_of(tmp_path, folds=2), data, SILENT)
    assert "\n" not in str(caught.value)


def test_a_single_frame_is_refused_by_a_model_of_sequences(recurrent: Path, tmp_path: Path) -> None:
    path = write_clip(hearts(1, 9)[0][0][:1], tmp_path / "still.nii.gz")
    with pytest.raises(InputError, match="single frame, but the model takes a sequence"):
        open_model(recurrent, "cpu").run(read_clip(path), ClassifyOptions(), SILENT)


@pytest.mark.parametrize("frames", [1, -2])
def test_a_task_of_too_few_frames_is_refused(tmp_path: Path, frames: int) -> None:
    with pytest.raises(InputError, match="'frames'"):
        task_of(tmp_path, frames=frames)


def test_a_list_names_clips_and_whose_they_are(tmp_path: Path) -> None:
    folder = clip_folders(tmp_path / "data", 8, 1)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [f"{path.relative_to(folder)},{path.parent.name},p{n // 2}" for n, path in enumerate(paths)]
    (folder / "list.csv").write_text("path,label,patient\n" + "\n".join(rows), encoding="utf-8")
    data = read_data(task_of(tmp_path, folds=2), folder / "list.csv", SILENT)
    assert data.images.shape[:2] == (8, FRAMES) and set(data.patients) == {"p0", "p1", "p2", "p3"}


def test_the_task_that_the_documentation_shows_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    task = read_task(str(written(tmp_path, json.loads(text.partition("```json")[2].partition("```")[0]))))
    assert isinstance(task, ClassificationTask) and task.decision == "binary" and task.frames == 16
    with torch.inference_mode():
        assert new_network(task.network).eval()(torch.zeros(1, 3, 1, *task.size)).shape == (1, 2)


def test_clips_of_volumes_are_learnt_from_and_classified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume_clips(tmp_path / "data" / "train", 32, 1)
    volume_clips(tmp_path / "data" / "val", 8, 2)
    backbone = frame_network(4) | {"spatial_dims": 3, "init_features": 4, "block_config": [1, 1]}
    network = heart_task()["network"] | {"backbone": backbone, "features": 4}  # type: ignore[operator]
    changes = {"network": network, "size": list(reversed(BOX)), "orientation": "RAS", "frames": BOX_FRAMES}
    augmentation = {"flip": [0, 1, 2], "rotate": 10, "elastic": 0.03, "noise": 0.1}
    task = written(tmp_path, heart_task(**changes, epochs=20, batch=8, augmentation=augmentation))
    words = ["train", str(task), "--data", str(tmp_path / "data"), "-o", str(tmp_path / "model"), "--device", "cpu"]
    assert main([*words, "--quiet"]) == 0
    paths = volume_clips(tmp_path / "new", 16, 3)
    found = said(tmp_path / "model", paths)
    assert sum(one == path.parent.name for one, path in zip(found, paths, strict=True)) >= 14
    capsys.readouterr()
    words = ["classify", str(paths[0]), "-m", str(tmp_path / "model"), "-o", str(tmp_path / "found.json"), "--json"]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["predicted"] == found[0]


def test_clips_of_volumes_are_planned_from_their_files(tmp_path: Path) -> None:
    volume_clips(tmp_path / "data", 8, 1)
    words = ["train", "beats", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "m"), "--plan-only", "--quiet"]
    assert main([*words, "--device", "cpu"]) == 0
    task = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(task, ClassificationTask)
    assert (task.frames, len(task.size), task.orientation) == (BOX_FRAMES, 3, "RAS")
    assert task.network["backbone"]["spatial_dims"] == 3
