"""Training of generators: pictures are checked first, a stopped run goes on to the same end, classifiers learn too."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import SimpleITK
import torch
from labelled import SIDE, class_folders, medmnist, small_task
from monai.bundle import ConfigWorkflow

from MedAILib.cli import main
from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError, ModelError
from MedAILib.files.images import read_image
from MedAILib.models.generate import generate
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import GenerateOptions
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.contest import build_pair
from MedAILib.training.cross_validation import split_folds
from MedAILib.training.generation import train_generator
from MedAILib.training.generation_distance import Distance, kept_aside
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.labelled_images import MADE
from MedAILib.training.pictures import pictures_tensor, read_pictures
from MedAILib.training.task import TASKS, read_task
from MedAILib.training.training_run import TrainingRun

SILENT = Progress()


class Listener(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Until(Cancellable):
    """Cancels where a step's text starts so."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.start = start

    def step(self, done: int, total: int, text: str = "") -> None:
        if text.startswith(self.start):
            self.cancel()
        super().step(done, total, text)


def small_generator(folder: Path, **changes: object) -> Path:
    """The breast task's content with networks of pictures of 12 x 12 pixels."""
    content = json.loads((TASKS / "breast_ultrasound_pictures.json").read_text(encoding="utf-8"))
    content |= {
        **{"name": "squares", "size": SIDE, "latent": 6, "epochs": 2, "batch": 4, "ema_decay": 0.5, "title": "Squares"},
        "generator": content["generator"] | {"start_shape": [8, 3, 3], "channels": [8, 1], "strides": [2, 2]},
        "discriminator": content["discriminator"] | {"channels": [4, 8], "strides": [2, 2]},
    }
    path = folder / "generator.json"
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def generation_task(folder: Path, **changes: object) -> GenerationTask:
    task = read_task(str(small_generator(folder, **changes)))
    assert isinstance(task, GenerationTask)
    return task


def train(*words: object) -> int:
    return main(["train", *(str(word) for word in words), "--device", "cpu", "--quiet"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of squares above (label 0), from the part "train" of `squares.npz` beside it."""
    folder = tmp_path_factory.mktemp("trained")
    data = medmnist(folder / "squares.npz", train=24, val=8)
    words = [small_generator(folder, epochs=40, learning_rate=0.003), "--data", data, "-o", folder / "above"]
    assert train(*words, "--set", "label=0") == 0
    return folder / "above"


def test_its_pictures_come_to_look_like_those_it_learnt_from(trained: Path) -> None:
    made = generate(trained, GenerateOptions(40), "cpu").volumes
    mean = np.mean([volume.data[0, 0] for volume in made], axis=0)
    assert mean.shape == (SIDE, SIDE)
    assert mean[1:5].mean() > mean[7:11].mean() + 0.1  # the square is above: rows are rows
    assert not np.array_equal(made[0].data, made[1].data)


def test_the_command_makes_pictures_and_volumes_of_it(trained: Path, tmp_path: Path) -> None:
    words = ["generate", "-m", str(trained), "-o", str(tmp_path / "out"), "--count", "2", "--device", "cpu", "--quiet"]
    assert main(words) == 0
    picture = np.asarray(PIL.Image.open(tmp_path / "out" / "above-0.png"))
    volume = read_image(tmp_path / "out" / "above-0.nii.gz")
    assert picture.shape == (SIDE, SIDE)
    assert volume.geometry.shape_kji == (1, SIDE, SIDE)
    assert np.abs(picture / 255 - volume.data[0, 0]).max() < 0.01
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"above-1.png", "above-1.nii.gz", "scene.mrb"}


def test_stock_monai_runs_the_bundle_as_it_is(trained: Path, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        workflow_type="infer",
        config_file=str(trained / "configs" / "inference.json"),
        meta_file=str(trained / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(trained),
        output_dir=str(tmp_path),
        num_samples=2,
        run_id="inferring",
    )
    workflow.initialize()
    workflow.run()
    assert [PIL.Image.open(path).size for path in tmp_path.rglob("*.png")] == [(SIDE, SIDE)] * 2


def test_the_card_tells_of_data_and_training_and_shows_samples(trained: Path) -> None:
    card = (trained / "docs" / "README.md").read_text(encoding="utf-8")
    for text in ("12 pictures of the label '0' of the part 'train'", "40 epochs", "--set label=0", "(samples.png)"):
        assert text in card
    training = trained.with_name("above.training")
    for path in (trained / "docs" / "samples.png", training / "samples.png", training / "losses.png"):
        assert PIL.Image.open(path).width > 600
    assert len((training / "losses.csv").read_text().splitlines()) == 41
    assert (trained / "models" / "model.pt").stat().st_size < 20_000
    said = json.loads((trained / "configs" / "metadata.json").read_text(encoding="utf-8"))["medai"]["generation"]
    assert said == {"label": "0", "part": "train", "pictures": 12}


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    task = generation_task(tmp_path)
    shown, _ = read_pictures(task, medmnist(tmp_path / "squares.npz", train=13), SILENT)
    whole = train_generator(task, shown, TrainingRun(tmp_path / "whole", 4), SILENT)

    for number, moment in enumerate(("Epoch 1", "Epoch 2", "Epoch 4")):
        with pytest.raises(Cancelled):
            train_generator(task, shown, TrainingRun(tmp_path / "parts", 4, resume=number > 0), Until(moment))
    resumed = train_generator(task, shown, TrainingRun(tmp_path / "parts", 4, resume=True), SILENT)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert (tmp_path / "parts" / "losses.csv").read_bytes() == (tmp_path / "whole" / "losses.csv").read_bytes()


def test_pictures_of_the_same_kind_are_near_and_others_far() -> None:
    draws = torch.Generator().manual_seed(0)
    smooth = torch.rand(90, 1, 6, 6, generator=draws)
    smooth = torch.nn.functional.interpolate(smooth, scale_factor=2.0, mode="bilinear")
    distance = Distance(smooth[:40], smooth[40:60])
    near, shifted = distance(smooth[60:80]), distance((smooth[60:80] + 0.1).clamp(max=1))
    far = distance(torch.rand(20, 1, SIDE, SIDE, generator=draws))
    repeated = distance(smooth[60:61].repeat(20, 1, 1, 1))
    assert abs(near) < 0.1 < shifted < far and repeated > 2 * abs(near)
    assert distance.wanted == 240


def test_a_training_that_may_stop_early_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    task = generation_task(tmp_path, patience=30, learning_rate=0.003)
    shown, _ = read_pictures(task, medmnist(tmp_path / "squares.npz", train=24), SILENT)
    learnt, kept = kept_aside(shown, task.seed)
    assert len(learnt) == 20 and len(kept) == 4
    whole = train_generator(task, learnt, TrainingRun(tmp_path / "whole", 12), SILENT, kept)
    with pytest.raises(Cancelled):
        train_generator(task, learnt, TrainingRun(tmp_path / "parts", 12), Until("Epoch 11"), kept)
    resumed = train_generator(task, learnt, TrainingRun(tmp_path / "parts", 12, resume=True), SILENT, kept)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert (tmp_path / "parts" / "losses.csv").read_bytes() == (tmp_path / "whole" / "losses.csv").read_bytes()
    rows = list(csv.DictReader((tmp_path / "whole" / "losses.csv").open()))
    judged = {int(row["epoch"]): float(row["distance_kept_aside"]) for row in rows if row["distance_kept_aside"]}
    assert list(judged) == [10, 12]


def test_a_generator_that_gains_nothing_stops_and_its_card_says_by_what(tmp_path: Path) -> None:
    path = small_generator(tmp_path, learning_rate=1e-30, epochs=90)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["generator"]["norm"] = "INSTANCE"  # which counts nothing
    path.write_text(json.dumps(content), encoding="utf-8")
    data = medmnist(tmp_path / "squares.npz", train=20)
    assert train(path, "--data", data, "-o", tmp_path / "m", "--set", "patience=15") == 0
    assert len((tmp_path / "m.training" / "losses.csv").read_text().splitlines()) == 1 + 30
    card = (tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "4 more pictures decided when to stop" in card and "16 pictures of the part 'train'" in card


def test_a_resume_of_another_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = medmnist(tmp_path / "squares.npz", train=8)
    words = [small_generator(tmp_path), "--data", data, "-o", tmp_path / "squares"]
    assert train(*words, "--resume") == 2
    assert "There is nothing to resume" in capsys.readouterr().err
    assert train(*words, "--epochs", 1) == 0
    assert train(*words, "--epochs", 1, "--resume", "--set", "learning_rate=0.1") == 2
    assert "squares.training is of another training: learning_rate differ(s)" in capsys.readouterr().err
    medmnist(data, train=10)
    assert train(*words, "--epochs", 1, "--resume") == 2
    assert "data differ(s)" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_training_with_the_reason(tmp_path: Path) -> None:
    task = generation_task(tmp_path, learning_rate=1e30)
    shown = torch.rand(8, 1, SIDE, SIDE)
    with pytest.raises(ModelError, match=r"is no finite number in epoch 1; most likely the learning rate 1e\+30"):
        train_generator(task, shown, TrainingRun(tmp_path / "run", 2), SILENT)


def spoil_few(arrays: dict[str, np.ndarray]) -> None:
    for what in ("images", "labels"):
        arrays[f"train_{what}"] = arrays[f"train_{what}"][:3]


def spoil_labels(arrays: dict[str, np.ndarray]) -> None:
    del arrays["train_labels"]


def spoil_part(arrays: dict[str, np.ndarray]) -> None:
    for what in ("images", "labels"):
        arrays[f"val_{what}"] = arrays.pop(f"train_{what}")


def spoil_volumes(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"] = np.repeat(arrays["train_images"][:, None], 5, axis=1)


def spoil_nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"] = arrays["train_images"].astype(np.float32)
    arrays["train_images"][1, 0, 0] = np.nan


def spoil_empty(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"][2] = 9


@pytest.mark.parametrize(
    ("spoil", "settings", "words"),
    [
        (spoil_few, [], "There are 3 pictures to learn from, and the task squares takes 4 at a time"),
        (spoil_labels, [], "10 images and 0 labels for train"),
        (spoil_part, [], "has no images of the part 'train', only of val"),
        (spoil_volumes, [], "train_0000 is of 5 x 12 x 12 voxels (K, J, I), but pictures are wanted"),
        (spoil_nan, [], "train_0001 has values that are not finite"),
        (spoil_empty, [], "train_0002 has the same value everywhere"),
        (None, ["label=7"], "has no images of the label '7'; its labels are '0' (5), '1' (5)"),
        (None, ["size=13"], "'generator' = "),
        (spoil_few, ["patience=9", "batch=2"], "There are 3 pictures, too few to keep some aside and stop early"),
        (None, ["patience=-1"], "'patience' = -1"),
        (None, ["batch=many"], "the task's batch has to be a whole number"),
        (None, ["colour=red"], "there is no such key"),
    ],
)
def test_what_can_not_be_learnt_from_is_refused_in_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[dict[str, np.ndarray]], None] | None,
    settings: list[str],
    words: str,
) -> None:
    path = medmnist(tmp_path / "squares.npz", train=10)
    arrays = dict(np.load(path))
    if spoil is not None:
        spoil(arrays)
    np.savez(path, **arrays)
    more = [word for setting in settings for word in ("--set", setting)]
    assert train(small_generator(tmp_path), "--data", path, "-o", tmp_path / "x", *more) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert not list(tmp_path.glob("x*"))


def test_options_of_other_trainings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = medmnist(tmp_path / "squares.npz", train=10)
    for more in (["--fold", "1"], ["--show-augmentation", str(tmp_path / "x.png")]):
        assert train(small_generator(tmp_path), "--data", data, "-o", tmp_path / "x", *more) == 2
        assert f"knows no {more[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("planned", [True, False])
def test_a_plan_alone_is_told_and_written_and_nothing_trained(
    planned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = medmnist(tmp_path / "squares.npz", train=10)
    task = "generation" if planned else small_generator(tmp_path)
    words = ["--data", data, "-o", tmp_path / "x", "--plan-only", "--set", "batch=3"]
    assert main(["train", *map(str, [task, *words]), "--device", "cpu"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    place = lines.index(["batch", "3"])
    assert " ".join(lines[place + 1]) == "(asked for by --set)"
    assert [path.name for path in (tmp_path / "x.training").iterdir()] == ["task.json"] and not (
        tmp_path / "x"
    ).exists()


def test_pictures_of_mixed_sizes_in_colour_are_resampled_in_grey_and_that_is_said(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 6)
    files = sorted(folder.rglob("*.png"))
    PIL.Image.open(files[0]).resize((40, 30)).save(files[0])
    for number, file in enumerate(files):
        assert read_pictures(generation_task(tmp_path), folder, SILENT)[0].shape == (6, 1, SIDE, SIDE), number
        PIL.Image.open(file).convert("RGB").save(file)
    listener = Listener()
    found, part = read_pictures(generation_task(tmp_path), folder, listener)
    assert found.shape == (6, 1, SIDE, SIDE)
    assert part == ""
    assert listener.warnings == [
        "6 of 6 pictures are in colour; they were converted to grey.",
        "The pictures are of 2 sizes, 12 x 12 (5), 40 x 30 (1); all are resampled to 12 x 12.",
    ]


def test_pictures_among_volumes_are_told_by_name(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 6)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.eye(12)[None].repeat(4, 0)), folder / "above" / "cube.nii.gz")
    with pytest.raises(InputError, match=r"above/cube\.nii\.gz is of 4 x 12 x 12 voxels"):
        read_pictures(generation_task(tmp_path), folder, SILENT)


def test_each_picture_fills_the_range() -> None:
    batch = pictures_tensor([torch.rand(9, 9) * 50 - 7, torch.arange(30.0).reshape(5, 6)], 8)
    assert batch.shape == (2, 1, 8, 8)
    assert 0 <= float(batch.min()) < 0.2 and 0.8 < float(batch.max()) <= 1


@pytest.mark.parametrize(
    "changes", [{"generator": {}}, {"part": "all"}, {"batch": 1}, {"discriminator": {"channels": [4]}}]
)
def test_tasks_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"has '{next(iter(changes))}' = "):
        generation_task(tmp_path, **changes)


# As augmentation of a classifier


def classifier_task(folder: Path, **changes: object) -> ClassificationTask:
    path = folder / "squares.json"
    path.write_text(json.dumps(small_task(folds=1, **changes)), encoding="utf-8")
    task = read_task(str(path))
    assert isinstance(task, ClassificationTask)
    return task


def test_made_pictures_are_learnt_from_and_never_judged(trained: Path, tmp_path: Path) -> None:
    task = classifier_task(tmp_path)
    plain = read_data(task, trained.with_name("squares.npz"), SILENT)
    more = read_data(
        replace(task, synthetic=[str(trained)], synthetic_share=1.5), trained.with_name("squares.npz"), SILENT
    )
    assert more.splits.count(MADE) == 18  # one and a half times the 12 above in the part "train"
    assert torch.equal(more.images[: len(plain.images)], plain.images)
    made = more.images[len(plain.images) :]
    assert more.numbers[len(plain.images) :].tolist() == [0] * 18
    assert made.std(dim=0).mean() > 0.1
    assert abs(float(made.mean())) < 0.01  # normalised as the others
    ((learn, judge),) = split_folds(task, more)
    assert len(learn) == 24 + 18
    assert set(np.array(more.splits)[judge]) == {"val"}


def test_a_classifier_learns_from_made_pictures_and_its_card_says_so(trained: Path, tmp_path: Path) -> None:
    classifier_task(tmp_path)
    words = [tmp_path / "squares.json", "--data", trained.with_name("squares.npz"), "--epochs", 1]
    assert train(*words, "-o", tmp_path / "more", "--set", f"synthetic={trained}") == 0
    card = (tmp_path / "more" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "24 images of the part 'train', 8 images of the part 'val'. Beside these it learnt from 12 made" in card
    assert f"--set synthetic={trained}" in card
    assert "| above | 0 | 16 |" in card
    assert train(*words, "-o", tmp_path / "plain") == 0
    judged = ["--data", str(trained.with_name("squares.npz")), "--split", "val", "-o", str(tmp_path / "effect")]
    compared = ["evaluate", "-m", str(tmp_path / "plain"), "--compare", str(tmp_path / "more"), *judged]
    assert main([*compared, "--device", "cpu", "--quiet"]) == 0
    told = json.loads((tmp_path / "effect" / "summary.json").read_text(encoding="utf-8"))["comparison"]["rows"]
    assert all(row["low"] <= row["difference"] <= row["high"] for row in told if row["difference"] is not None)
    assert "auc" in [row["key"] for row in told]


def change_generation(bundle: Path, copy: Path, **changes: str) -> Path:
    shutil.copytree(bundle, copy)
    path = copy / "configs" / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["medai"]["generation"] |= changes
    path.write_text(json.dumps(content), encoding="utf-8")
    return copy


def test_generators_that_can_not_be_learnt_from_are_refused(trained: Path, tmp_path: Path) -> None:
    data, task = trained.with_name("squares.npz"), classifier_task(tmp_path)
    unlabelled = change_generation(trained, tmp_path / "unlabelled", label="")
    foreign = change_generation(trained, tmp_path / "foreign", label="cat")
    judging = change_generation(trained, tmp_path / "judging", part="val")
    for source, words in (
        (unlabelled, "does not tell of which class its pictures are"),
        (foreign, "The label 'cat' of what .*foreign makes is none of the classes"),
        (judging, "learnt from the part 'val', which classifiers are judged by"),
    ):
        with pytest.raises(InputError, match=words):
            read_data(replace(task, synthetic=[str(source)]), data, SILENT)
    with pytest.raises(InputError, match="judges in folds"):
        read_data(replace(task, folds=2, synthetic=[str(trained)]), data, SILENT)
    listener = Listener()
    read_data(replace(task, synthetic=[str(change_generation(trained, tmp_path / "whole", part=""))]), data, listener)
    assert "learnt from data without parts" in listener.warnings[0]


def test_the_shipped_task_is_read_and_its_networks_make_pictures_of_its_size() -> None:
    task = read_task("breast_ultrasound_pictures")
    assert isinstance(task, GenerationTask)
    generator, judge = build_pair(task)
    made = generator(torch.zeros(2, task.latent))
    assert made.shape == (2, 1, task.size, task.size)
    assert judge(made).shape == (2, 1)


def test_a_generator_is_planned_from_pictures_of_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data" / "one"
    data.mkdir(parents=True)
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 255, (40, 50), dtype=np.uint8)
        PIL.Image.fromarray(picture).save(data / f"{number}.png")
    words = ("--data", data.parent, "-o", tmp_path / "made", "--epochs", 1, "--device", "cpu")
    assert main([str(word) for word in ("train", "generation", *words)]) == 0
    told = capsys.readouterr().out
    assert "50 along their longer side" in told and "asked for by --set" in told
    task = read_task(str(tmp_path / "made.training" / "task.json"))
    assert isinstance(task, GenerationTask)
    assert (task.size, task.name, task.epochs) == (64, "made", 1)
    assert (tmp_path / "made" / "docs" / "README.md").is_file()


@pytest.mark.parametrize(
    ("kind", "folder", "words"),
    [("segmentation", "classes", "call the task classification"), ("classification", "masks", "the task segmentation")],
)
def test_data_of_another_kind_than_the_task_is_called_by_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, folder: str, words: str
) -> None:
    class_folders(tmp_path / "classes", 4)
    for inside in ("images", "labels"):
        class_folders(tmp_path / "masks" / inside, 2)
    assert train(kind, "--data", tmp_path / folder, "-o", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
