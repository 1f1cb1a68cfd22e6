"""Several labels for an image: planned, learnt, calibrated, exported; refused where they make no sense."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from labelled import class_folders, medmnist
from monai.bundle import ConfigParser
from shapes import SHAPES, archive, shape_pictures, tabled

from MedAILib.cli import main
from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.open import open_model
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import ClassifyOptions
from MedAILib.training.calibrating import best_f1_threshold, best_offsets
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData, split_folds, train_classifier
from MedAILib.training.decision import LossOptions
from MedAILib.training.decisions import decision_of
from MedAILib.training.labelled_images import find_labelled_images, read_labelled
from MedAILib.training.lesson import Bench
from MedAILib.training.matched_labels import marked
from MedAILib.training.plan_classifier import Wanted, plan_classifier

SILENT = Progress()
NETWORK = {
    **{"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3},
    **{"init_features": 8, "growth_rate": 8, "block_config": [2, 2]},
}


def train(*words: Any) -> int:
    return main(["train", *map(str, words), "--device", "cpu", "--quiet"])


def short_task(data: Path, **changes: Any) -> ClassificationTask:
    """The task that is planned for some data, with a smaller network and few epochs."""
    task = plan_classifier("shapes", data, Wanted(), SILENT)[0]
    return replace(task, **{"network": NETWORK, "epochs": 2, "distil_epochs": 2, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that was planned from and trained on pictures of shapes."""
    folder = tmp_path_factory.mktemp("labels")
    data = archive(folder / "shapes.npz", shape_pictures, train=96, val=40)
    network = ["--set", f"network={json.dumps(NETWORK)}"]
    assert train("shapes", "--data", data, "-o", folder / "shapes", "--epochs", 16, *network) == 0
    return folder


def test_a_planned_model_names_all_shapes_of_a_picture(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(place / "shapes", "cpu")
    images = find_labelled_images(archive(tmp_path / "new.npz", shape_pictures, test=40))
    assert model.spec.classes is not None and model.spec.classes.kind == "multilabel"
    found = [model.run(read_labelled(image), ClassifyOptions(), SILENT).verdict().classes for image in images]
    assert np.mean([said == image.labels for said, image in zip(found, images, strict=True)]) > 0.8
    several = next(n for n, said in enumerate(found) if len(said) > 1)
    PIL.Image.fromarray(images[several].array).save(tmp_path / "all.png")
    words = ["classify", tmp_path / "all.png", "-m", place / "shapes", "-o", tmp_path / "a.json", "--device", "cpu"]
    explain = ["--explain", tmp_path / "why.nii.gz", "--json", "--quiet"]
    assert main([str(word) for word in (*words, *explain)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["predicted"] == list(found[several]) and len(told["threshold"]) == 3
    assert (tmp_path / "why.nii.gz").is_file()


def test_the_training_reports_each_label(place: Path) -> None:
    folder = place / "shapes.training" / "validation"
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert told["cases"] == 40 and set(told["per_class"]) == {"0", "1", "2"} and told["medai"]["part"] == "val"
    assert "Each label" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_batch_lists_the_labels_of_each_picture(place: Path, tmp_path: Path) -> None:
    images, _ = shape_pictures(3)
    for number, image in enumerate(images):
        (tmp_path / "in").mkdir(exist_ok=True)
        PIL.Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    words = ["batch", tmp_path / "in", "-m", place / "shapes", "-o", tmp_path / "out", "--device", "cpu", "--quiet"]
    assert main([str(word) for word in words]) == 0
    with (tmp_path / "out" / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and any("none" in cell for cell in rows[0].values())


def test_stock_monai_says_the_same_up_to_the_calibration(place: Path, tmp_path: Path) -> None:
    images, _ = shape_pictures(3)
    (tmp_path / "images").mkdir()
    PIL.Image.fromarray(images[2]).save(tmp_path / "images" / "a.png")
    parser = ConfigParser()
    parser.read_config(str(place / "shapes" / "configs" / "inference.json"))
    parser.update({"bundle_root": str(place / "shapes"), "dataset_dir": str(tmp_path / "images")})
    parser.update({"output_dir": str(tmp_path / "out")})
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    said = np.asarray(parser.get_parsed_content("evaluator").state.output[0]["pred"], dtype=np.float64)
    (tmp_path / "list.csv").write_text("path,label\nimages/a.png,0;1\n", encoding="utf-8")
    volume = read_labelled(find_labelled_images(tmp_path / "list.csv")[0])
    model = open_model(place / "shapes", "cpu")
    result = model.run(volume, ClassifyOptions(), SILENT)
    assert 1 / (1 + np.exp(-result.scores[0])) == pytest.approx(said, abs=2e-3)
    classes = model.spec.classes
    assert classes is not None
    calibrated = result.scores[0] / classes.temperature + np.array(classes.offsets or (0, 0, 0))
    assert result.probabilities[0] == pytest.approx(1 / (1 + np.exp(-calibrated)))


def test_the_card_has_a_row_for_each_label(place: Path) -> None:
    card = (place / "shapes" / "docs" / "README.md").read_text(encoding="utf-8")
    for text in (
        "each label whose probability reaches its threshold",
        "| none of them |",
        "All decisions together: F1",
    ):
        assert text in card
    assert float(card.split("| Mean area under the ROC curve | ")[1].split(" ")[0]) > 0.9


@pytest.mark.parametrize("columns", [True, False])
def test_tables_have_a_column_for_each_label_or_names_between_semicolons(tmp_path: Path, columns: bool) -> None:
    data = tabled(tmp_path, 12, columns)
    images = find_labelled_images(data)
    task = plan_classifier("shapes", data, Wanted(), SILENT)[0]
    assert (task.decision, set(task.names), task.threshold) == ("multilabel", set(SHAPES), "f1")
    truth = marked(images, {name: [name] for name in SHAPES})
    assert np.array_equal(truth, shape_pictures(12)[1])
    assert images[0].labels == ()  # a picture without any label is one of them
    assert read_data(replace(task, network=NETWORK), data, SILENT).numbers.shape == (12, 3)


def test_a_label_is_the_same_however_it_is_spelt(tmp_path: Path) -> None:
    table = tabled(tmp_path, 3, columns=False)
    table.write_text("path,label\n00.png,Mass; node\n01.png,mass;Node;\n02.png,\n", encoding="utf-8")
    assert [image.labels for image in find_labelled_images(table)] == [("Mass", "node"), ("Mass", "node"), ()]


def test_rare_labels_are_weighted_where_there_are_any(tmp_path: Path) -> None:
    images, labels = shape_pictures(40)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    assert plan_classifier("a", tmp_path / "a.npz", Wanted(), SILENT)[0].class_weights == "none"
    labels[4:, 2] = 0
    np.savez(tmp_path / "b.npz", train_images=images, train_labels=labels)
    assert plan_classifier("b", tmp_path / "b.npz", Wanted(), SILENT)[0].class_weights == "balanced"


def test_images_with_a_rare_label_count_more_for_it() -> None:
    decision = decision_of("multilabel", ("often", "rare"))
    targets = torch.tensor([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    loss = decision.loss(LossOptions("cross-entropy", 0.0, "balanced"), targets)
    scores = torch.zeros(1, 2)
    alone = float(torch.log(torch.tensor(2.0)))
    assert float(loss(scores, torch.tensor([[0.0, 1.0]]))) == pytest.approx(alone * (1 + 9) / 2)
    assert float(loss(scores, torch.tensor([[1.0, 0.0]]))) == pytest.approx(alone * (1 / 9 + 1) / 2)
    shares = decision.draw_shares(targets)
    assert float(shares[9] / shares[0]) == pytest.approx(9)


def test_offsets_and_thresholds_mend_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (6000, 2)) + np.array([1.0, -2.0])
    marks = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    temperature, offsets = best_offsets(2 * logits + np.array([3.0, -1.0]), marks)
    assert temperature == pytest.approx(2, rel=0.1)
    assert offsets == pytest.approx([-1.5, 0.5], abs=0.15)
    likely = np.array([0.05] * 90 + [0.2] * 10)
    assert 0.05 < best_f1_threshold(likely, np.repeat([0, 1], [90, 10])) <= 0.2
    assert best_f1_threshold(likely, np.zeros(100, np.int64)) == 0.5


def test_folds_share_labels_and_keep_patients_together(tmp_path: Path) -> None:
    data = read_data(short_task(archive(tmp_path / "s.npz", shape_pictures, train=60)), tmp_path / "s.npz", SILENT)
    patients = tuple(f"patient {n // 3}" for n in range(60))
    task = short_task(tmp_path / "s.npz", folds=4)
    together = replace(data, patients=patients)
    judged = []
    for learn, judge in split_folds(task, together):
        assert not {patients[n] for n in learn} & {patients[n] for n in judge}
        judged += judge.tolist()
    assert sorted(judged) == list(range(60))
    shares = np.array([data.numbers[judge].sum(axis=0) for _, judge in split_folds(task, data)])
    assert (shares.max(axis=0) - shares.min(axis=0) <= 2).all()


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    path = archive(tmp_path / "s.npz", shape_pictures, train=24, val=8)
    changes = {"epochs": 3, "sampling": "balanced", "augmentation": {"mixup": 0.3, "flip": [0]}, "batch": 8}
    task = short_task(path, choice="best", patience=5, class_weights="balanced", **changes)
    data = read_data(task, path, SILENT)
    whole = train_classifier(task, data, Bench(tmp_path / "whole", "cpu", False, ""), SILENT)

    class InSecond(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            if "epoch 2" in text:
                self.cancel()
            super().step(done, total, text)

    bench = Bench(tmp_path / "parts", "cpu", False, "")
    with pytest.raises(Cancelled):
        train_classifier(task, data, bench, InSecond())
    resumed = train_classifier(task, data, replace(bench, resume=True), SILENT)
    assert all(torch.equal(value, resumed.weights[key]) for key, value in whole.weights.items())
    assert resumed.calibration == whole.calibration


def test_the_mean_of_networks_goes_on_from_another_model(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = archive(tmp_path / "s.npz", shape_pictures, train=40)
    more = ["--set", "folds=2", "--set", "shipped=2", "--set", "loss=focal"]
    more += ["--initial", place / "shapes", "--epochs", 1, "--set", "strange_quantile=1"]
    words = ["shapes", "--data", data, "-o", tmp_path / "m", *more]
    assert train(*words, "--set", "frozen_stages=1") == 2  # the model's first stage has other shapes
    assert "frozen_stages=1 would keep random weights, since features.conv0.weight" in capsys.readouterr().err
    assert train(*words) == 0
    model = open_model(tmp_path / "m", "cpu")
    image = find_labelled_images(data)[1]
    result = model.run(read_labelled(image), ClassifyOptions(), SILENT)
    assert result.kind == "multilabel" and result.strange_above is not None
    told = json.loads((tmp_path / "m" / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert told["network_def"]["activation"] == "sigmoid"


def test_a_mean_of_networks_is_the_mean_of_their_probabilities() -> None:
    torch.manual_seed(0)
    members = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)) for _ in range(2)]
    image = torch.randn(5, 1, 4, 4)
    mean = MeanClassifier(members, activation="sigmoid")(image).sigmoid()
    assert torch.allclose(mean, sum(member(image).sigmoid() for member in members) / 2, atol=1e-5)


def spoil(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    archive(path, shape_pictures, train=12, val=6)
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)
    return path


def value(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"][3, 1] = 2


def never(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"][:, 2] = arrays["val_labels"][:, 2] = 0


def never_learnt(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"][:, 2] = 0
    arrays["val_labels"][:3, 2] = 1


def alike(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"][:] = arrays["val_labels"][:] = (1, 0, 1)


def narrower(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_labels"] = arrays["val_labels"][:, :1]


def contradiction(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"][1] = arrays["train_images"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (value, r"Row 3 \(counted from 0\) of train_labels in .*s\.npz has 2 for the label 1; .* 0 or 1"),
        (never, "has no image with the label 2, and at least 2 are needed"),
        (never_learnt, "The part 'train' of the data has no image with the label 2"),
        (alike, r"All images of .*s\.npz have the same labels \(0, 2\)"),
        (narrower, "different numbers of labels for an image: 3 for train, 1 for val"),
        (contradiction, "same image under two labels, none and 0;1;2"),
    ],
)
def test_archives_that_can_not_be_learnt_from_are_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, np.ndarray]], None], said: str
) -> None:
    refused(["shapes", "--data", spoil(tmp_path / "s.npz", change)], tmp_path, capsys, said)


def refused(words: list[Any], folder: Path, capsys: pytest.CaptureFixture[str], said: str) -> None:
    """See that a training is refused in one line, which a pattern describes, and leaves nothing behind."""
    before = sorted(folder.iterdir())
    assert train(*words, "-o", folder / "m") == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in told if line.startswith("medai:")]) == 1
    with pytest.raises(InputError, match=said):
        raise InputError(told[-1])
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,a,b\n00.png,0,1\n01.png,2,0\n02.png,1,1\n", r"Line 3 of .*has '2' for the label a"),
        ("path,a,b\n00.png,0,1\n01.png,,0\n02.png,1,1\n", r"Line 3 of .*has nothing for the label a"),
        ("path,a,A\n00.png,0,1\n01.png,1,0\n", "two columns for the label a"),
        (
            "path,label,a\n00.png,a;b,1\n01.png,b,0\n",
            "by name in one column, and columns of zeros and ones for a",
        ),
        ("path,label\n00.png,a;b\n01.png,a;b\n", r"have the same labels \(a, b\)"),
        ("path,label\n00.png,a;\n01.png,\n", "1 labels in all; there must be two"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    table = tabled(tmp_path / "data", 3, True)
    table.write_text(content, encoding="utf-8")
    refused(["shapes", "--data", table], tmp_path, capsys, said)


def test_a_label_that_the_task_does_not_know_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tabled(tmp_path / "data", 12, columns=False)
    assert train("shapes", "--data", table, "-o", tmp_path / "planned", "--plan-only") == 0
    task = (tmp_path / "planned.training" / "task.json").rename(tmp_path / "task.json")
    (tmp_path / "planned.training").rmdir()
    text = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([*text[:-1], "11.png,block;ring"]) + "\n", encoding="utf-8")
    said = r"label 'ring' of 11\.png in line 13 of .*labels\.csv is none of the labels: block \(block\); column"
    refused([task, "--data", table], tmp_path, capsys, said)
    columns = tabled(tmp_path / "data", 12, columns=True)
    columns.write_text(columns.read_text(encoding="utf-8").replace("row", "ring"), encoding="utf-8")
    said = r"column for the label 'ring' \(line 2 of .*labels\.csv\), which is none of the labels"
    refused([task, "--data", columns], tmp_path, capsys, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "decision=multiclass"], r"Row \d+ .* has \d labels, but one class for each image is wanted"),
        (["--set", "decision=several"], "no such decision; known are binary, multiclass, multilabel, ordinal"),
        (["--set", "synthetic=breast_ultrasound"], "made pictures are of one class each"),
        (["--set", "class_weights=1,2"], "'class_weights'"),
    ],
)
def test_choices_that_make_no_sense_for_several_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    data = archive(tmp_path / "s.npz", shape_pictures, train=12, val=6)
    refused(["shapes", "--data", data, *words], tmp_path, capsys, said)


def test_any_images_of_classes_can_be_learnt_as_labels_and_rows_of_one_as_classes(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "folders", 8)
    task = plan_classifier("squares", folder, Wanted(decision="multilabel"), SILENT)[0]
    assert (task.decision, task.names) == ("multilabel", ("above", "below"))
    assert read_data(task, folder, SILENT).numbers.sum(axis=1).tolist() == [1] * 8
    path = medmnist(tmp_path / "squares.npz", train=8)
    arrays = dict(np.load(path))
    arrays["train_labels"] = np.eye(2, dtype=np.uint8)[arrays["train_labels"][:, 0]]
    np.savez(path, **arrays)
    task, choices = plan_classifier("squares", path, Wanted(), SILENT)
    assert any("--set decision=multiclass" in choice.reason for choice in choices)
    task = plan_classifier("squares", path, Wanted(decision="binary"), SILENT)[0]
    assert read_data(task, path, SILENT).numbers.tolist() == [0, 1] * 4


def test_a_label_without_images_to_judge_by_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(arrays: dict[str, np.ndarray]) -> None:
        arrays["val_labels"][:, 2] = 0

    data = spoil(tmp_path / "s.npz", absent)
    assert train("shapes", "--data", data, "-o", tmp_path / "m", "--epochs", 1) == 0
    assert "No image to judge by has 2: thresholds there stay at 0.5" in capsys.readouterr().err
    card = (tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "| 2 | 0 | – | – | – |" in card and "`2` from 0.5" in card


def test_a_label_of_one_patient_alone_can_not_be_judged(tmp_path: Path) -> None:
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 4, 4)
    marks = np.array([[1, 1]] * 2 + [[0, 1]] * 3 + [[0, 0]] * 3)
    names = tuple(str(n) for n in range(8))
    data = ClassData(images, marks, names, ("",) * 8, ("x", "x", "a", "b", "c", "d", "e", "f"))
    classes = [{"name": name, "labels": [name]} for name in ("rare", "often")]
    task = replace(short_task(archive(tmp_path / "s.npz", shape_pictures, train=8)), classes=classes, folds=2)
    with pytest.raises(InputError, match="label rare or those without it are of one patient or copies"):
        split_folds(task, data)
