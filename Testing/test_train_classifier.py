"""Training of classifiers: data is checked first, runs go on where they stopped, and the result runs everywhere."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from labelled import SIDE, class_folders, medmnist, pictures, small_task

from MedAILib.cli import main
from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError, ModelError
from MedAILib.models.networks import build_network
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import ClassifyOptions
from MedAILib.training.augment_images import Augmentation
from MedAILib.training.calibrating import best_temperature, best_threshold
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData, split_folds, train_classifier
from MedAILib.training.labelled_images import find_labelled_images, read_labelled
from MedAILib.training.lesson import Bench
from MedAILib.training.matched_labels import numbered
from MedAILib.training.plan_classifier import Wanted, plan_classifier
from MedAILib.training.task import read_task

SILENT = Progress()
RESNET = {
    **{"_target_": "ResNet", "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4]},
    **{"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2, "conv1_t_size": 3, "conv1_t_stride": 1},
    "no_max_pool": True,
}


class Listener(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def written(task: dict[str, object], folder: Path) -> Path:
    path = folder / "squares.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path: Path) -> ClassificationTask:
    read = read_task(str(written(small_task(), tmp_path)))
    assert isinstance(read, ClassificationTask)
    return read


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    task = written(small_task(networks=2), folder)
    data = medmnist(folder / "squares.npz", train=40, val=8, test=4)
    assert (
        main(["train", str(task), "--data", str(data), "-o", str(folder / "squares"), "--device", "cpu", "--quiet"])
        == 0
    )
    return folder / "squares"


def test_the_command_trains_a_model_that_classifies_new_pictures(trained: Path) -> None:
    model = open_model(trained, "cpu")
    images = find_labelled_images(medmnist(trained.parent / "new.npz", test=12))
    found = [model.run(read_labelled(image), ClassifyOptions(), SILENT).likeliest for image in images]
    assert found == ["above", "below"] * 6


def test_the_card_tells_of_data_training_and_figures(trained: Path) -> None:
    card = (trained / "docs" / "README.md").read_text(encoding="utf-8")
    for text in ("40 images of the part 'train'", "8 images of the part 'val'", "| Accuracy |", "2 networks averaged"):
        assert text in card
    assert float(card.split("| Area under the ROC curve | ")[1].split(" ")[0]) > 0.9
    assert "CC-BY-4.0" in (trained / "LICENSE").read_text(encoding="utf-8")
    assert (trained / "models" / "model.pt").stat().st_size < 50_000


def test_the_training_reports_on_images_that_were_not_learnt_from(trained: Path) -> None:
    folder = trained.with_name("squares.training") / "cross_validation"
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    truth = {case["case"]: "below" if int(case["case"][-1]) % 2 else "above" for case in told["metric_per_case"]}
    assert len(truth) == told["cases"] == 48 and told["medai"]["sha256"] is None
    assert all(case["reference"] == truth[case["case"]] for case in told["metric_per_case"])
    right = [case["reference"] == case["predicted"] for case in told["metric_per_case"]]
    assert told["accuracy"] == pytest.approx(np.mean(right)) and np.sum(told["confusion"]) == 48
    card = (trained / "docs" / "README.md").read_text(encoding="utf-8")
    low, high = told["intervals_95"]["auc"]
    assert f"| Area under the ROC curve | {told['auc']:.3f} | {low:.3f} to {high:.3f} |" in card
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 3 + 5
    for text in ("2-fold cross-validation", "which have not learnt from it", "medai train", "least sure of the truth"):
        assert text in page
    assert (folder / "cases.csv").read_text(encoding="utf-8").count("\n") == 49


def test_one_fold_is_reported_on_its_validation_part(tmp_path: Path) -> None:
    path = written(small_task(folds=1, epochs=1, strange_quantile=0.5), tmp_path)
    data = medmnist(tmp_path / "squares.npz", train=16, val=6)
    words = ["train", str(path), "--data", str(data), "-o", str(tmp_path / "m"), "--device", "cpu", "--quiet"]
    assert main(words) == 0
    told = json.loads((tmp_path / "m.training" / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in told["metric_per_case"]] == [f"val_{n:04d}" for n in range(6)]
    assert told["medai"]["part"] == "val" and told["not_sure"] == 3


def test_a_resume_with_other_parts_patients_or_names_is_refused(task: ClassificationTask, tmp_path: Path) -> None:
    task = replace(task, epochs=1)
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=16, val=4), SILENT)
    bench = Bench(tmp_path / "bench", "cpu", True, "")
    train_classifier(task, data, bench, SILENT)
    patients = tuple(f"p{n // 2}" for n in range(20))
    for changed in ({"splits": data.splits[::-1]}, {"patients": patients}, {"names": data.names[::-1]}):
        with pytest.raises(InputError, match="of another training"):
            train_classifier(task, replace(data, **changed), bench, SILENT)


def test_a_new_training_leaves_no_checkpoint_of_an_older_one(task: ClassificationTask, tmp_path: Path) -> None:
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=20), SILENT)
    bench = Bench(tmp_path / "bench", "cpu", False, "")
    train_classifier(replace(task, epochs=1, distil_epochs=1, networks=2), data, bench, SILENT)
    (bench.folder / "mine.pt").write_bytes(b"")

    class InFirst(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            if "epoch 2" in text:
                self.cancel()
            super().step(done, total, text)

    task = replace(task, epochs=2, distil_epochs=1)
    with pytest.raises(Cancelled):
        train_classifier(task, data, bench, InFirst())
    assert sorted(path.name for path in bench.folder.glob("*.pt")) == ["fold_0_network_0.pt", "mine.pt"]
    train_classifier(task, data, replace(bench, resume=True), SILENT)


def test_a_stopped_training_goes_on_to_the_same_weights(task: ClassificationTask, tmp_path: Path) -> None:
    task = replace(task, epochs=4, distil_epochs=3, networks=2)
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=20, val=4), SILENT)
    whole = train_classifier(task, data, Bench(tmp_path / "whole", "cpu", False, ""), SILENT)

    class While(Cancellable):
        def __init__(self, start: str) -> None:
            super().__init__()
            self.start = start

        def step(self, done: int, total: int, text: str = "") -> None:
            if text.startswith(self.start):
                self.cancel()
            super().step(done, total, text)

    bench = Bench(tmp_path / "parts", "cpu", False, "")
    for start in ("Fold 0 network 1, epoch 3", "Fold 1 network 0, epoch 2", "Final network, epoch 2"):
        with pytest.raises(Cancelled):
            train_classifier(task, data, bench, While(start))
        bench = replace(bench, resume=True)
    resumed = train_classifier(task, data, bench, SILENT)
    assert all(torch.equal(value, resumed.weights[key]) for key, value in whole.weights.items())
    assert resumed.calibration == whole.calibration


def test_a_resume_with_another_task_or_other_data_is_refused(task: ClassificationTask, tmp_path: Path) -> None:
    task = replace(task, epochs=1)
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=20), SILENT)
    bench = Bench(tmp_path / "bench", "cpu", True, "")
    train_classifier(task, data, bench, SILENT)
    with pytest.raises(InputError, match=r"fold_0_network_0\.pt is of another training"):
        train_classifier(replace(task, learning_rate=0.5), data, bench, SILENT)
    other = read_data(task, medmnist(tmp_path / "other.npz", train=24), SILENT)
    with pytest.raises(InputError, match="of another training"):
        train_classifier(task, other, bench, SILENT)


def test_a_loss_that_is_no_number_ends_the_training_with_the_reason(task: ClassificationTask, tmp_path: Path) -> None:
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=20), SILENT)
    with pytest.raises(ModelError, match="loss of fold 0 network 0 is no finite number"):
        train_classifier(replace(task, learning_rate=1e36), data, Bench(tmp_path, "cpu", False, ""), SILENT)


def test_the_best_epoch_is_taken_also_after_a_stop(task: ClassificationTask, tmp_path: Path) -> None:
    task = replace(task, epochs=6, folds=1, choice="best", learning_rate=0.3)
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=20, val=8), SILENT)
    bench = Bench(tmp_path / "bench", "cpu", False, "")
    whole = train_classifier(task, data, bench, SILENT)
    kept = load_weights(tmp_path / "bench" / "fold_0_network_0.pt")
    truth = torch.from_numpy(whole.judged.numbers)
    likely = torch.from_numpy(whole.judged.scores)
    assert float(torch.nn.functional.cross_entropy(likely, truth)) == pytest.approx(kept["surprise"], rel=1e-3)
    assert all(torch.equal(value, kept["best"][key]) for key, value in whole.weights.items())

    class InFifth(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            if "epoch 5" in text:
                self.cancel()
            super().step(done, total, text)

    bench = replace(bench, folder=tmp_path / "parts")
    with pytest.raises(Cancelled):
        train_classifier(task, data, bench, InFifth())
    resumed = train_classifier(task, data, replace(bench, resume=True), SILENT)
    assert all(torch.equal(value, resumed.weights[key]) for key, value in whole.weights.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "focal", "class_weights": "balanced"},
        {"class_weights": [1.0, 2.0]},
        {"network": RESNET, "size": [28, 28]},
        {"network": RESNET, "networks": 2, "folds": 1},
    ],
)
def test_losses_networks_and_official_parts(tmp_path: Path, changes: dict[str, object]) -> None:
    task = read_task(str(written(small_task(epochs=1, distil_epochs=1, **changes), tmp_path)))
    assert isinstance(task, ClassificationTask)
    data = read_data(task, medmnist(tmp_path / "squares.npz", train=16, val=6), SILENT)
    done = train_classifier(task, data, Bench(tmp_path / "bench", "cpu", False, ""), SILENT)
    assert len(done.judged.numbers) == (6 if task.folds == 1 else 22)
    assert all(torch.isfinite(value).all() for value in done.weights.values())


def test_volumes_are_learnt_from_as_well(tmp_path: Path) -> None:
    flat, labels = pictures(12)
    np.savez(tmp_path / "volumes.npz", train_images=np.repeat(flat[:, None], 10, axis=1), train_labels=labels)
    network = {"_target_": "DenseNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    network |= {"init_features": 4, "growth_rate": 2, "block_config": [2, 2]}
    changes = {"size": [12, 12, 10], "orientation": "RAS", "network": network, "epochs": 1}
    path = written(small_task(**changes, augmentation={"flip": [0, 1], "rotate": 9, "blur": 0.5}), tmp_path)
    bundle = tmp_path / "volumes"
    arguments = ["train", str(path), "--data", str(tmp_path / "volumes.npz"), "-o", str(bundle), "--device", "cpu"]
    assert main([*arguments, "--quiet"]) == 0
    spec = open_model(bundle, "cpu").spec
    assert spec.classes is not None and spec.classes.dimensions == 3


def test_the_textbook_network_has_the_shape_that_tutorials_show() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "in_shape": [28, 28]}
    network = build_network("TextbookCNN", arguments)
    shapes = [tuple(value.shape) for value in network.state_dict().values() if value.ndim > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (512, 128 * 9), (2, 512)]
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 2)
    with pytest.raises(ModelError, match="halved 3 times"):
        build_network("TextbookCNN", arguments | {"in_shape": [4, 28]})


def test_a_mirrored_image_is_mirrored_along_the_axis_asked_for() -> None:
    image = torch.rand(1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    change = Augmentation({"flip": [0]})
    change.reseed(0)
    plain = (image - image.mean()) / image.std()
    found = [change(image) for _ in range(12)]
    same = [torch.allclose(x, plain, atol=1e-3) for x in found]
    mirrored = [torch.allclose(x, plain.flip(2), atol=1e-3) for x in found]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same) and any(mirrored)


def test_shifts_and_rotations_stay_within_their_limits() -> None:
    dots = torch.zeros(100, 1, 29, 29)
    dots[:, :, 14, 14] = 1
    for wanted, limit in (({"translate": 0.1}, 3), ({"rotate": 90}, 0)):
        change = Augmentation(wanted)
        change.reseed(0)
        places = change(dots).flatten(1).argmax(dim=1)
        away = torch.stack((places // 29, places % 29)) - 14
        assert away.abs().max() == limit


def test_temperature_and_threshold_mend_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    numbers = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(np.int64)
    assert best_temperature(np.stack([np.zeros(4000), 3 * truth], axis=1), numbers) == pytest.approx(3, rel=0.1)
    likely = np.concatenate([np.linspace(0, 0.3, 50), np.linspace(0.35, 1, 50)])
    assert 0.25 < best_threshold(likely, np.repeat([0, 1], 50)) < 0.4


def test_patients_stay_together_and_every_image_is_judged_once(task: ClassificationTask, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 16)
    rows = [
        f"{path.relative_to(folder)},{path.parent.name},p{n // 2}"
        for n, path in enumerate(sorted(folder.rglob("*.png")))
    ]
    (folder / "list.csv").write_text("path,label,patient\n" + "\n".join(rows), encoding="utf-8")
    data = read_data(task, folder / "list.csv", SILENT)
    folds = split_folds(task, data)
    assert sorted(np.concatenate([judge for _, judge in folds])) == list(range(16))
    for learn, judge in folds:
        assert not {data.patients[n] for n in learn} & {data.patients[n] for n in judge}


@pytest.mark.parametrize("decision", ["multiclass", "ordinal"])
@pytest.mark.parametrize(
    ("patients", "words"),
    [
        (("x", "x", "a", "b", "c", "d", "e", "f", "g"), "images of 2_rare are all of one patient or copies"),
        (("x", "y", "a", "b", "c", "d", "e", "f", "g"), None),
    ],
)
def test_a_class_of_one_patient_can_not_be_learnt_in_each_fold(
    tmp_path: Path, decision: str, patients: tuple[str, ...], words: str | None
) -> None:
    classes = [{"name": name, "labels": [name]} for name in ("0_none", "1_often", "2_rare")]
    task = read_task(str(written(small_task(decision=decision, classes=classes), tmp_path)))
    assert isinstance(task, ClassificationTask)
    images = torch.arange(9.0)[:, None, None, None].expand(9, 1, 4, 4)
    numbers, names = np.array([2, 2, 0, 1, 0, 1, 0, 1, 0]), tuple(str(n) for n in range(9))
    data = ClassData(images, numbers, names, ("",) * 9, patients)
    if words is None:
        assert all(set(numbers[learn]) == {0, 1, 2} for learn, _ in split_folds(task, data))
    else:
        with pytest.raises(InputError, match=words):
            split_folds(task, data)


def test_a_class_that_a_part_lacks_is_named(task: ClassificationTask, tmp_path: Path) -> None:
    path = medmnist(tmp_path / "squares.npz", train=10, val=1)
    task = replace(task, folds=1)
    with pytest.raises(InputError, match="The part 'val' of the data has no images of below"):
        split_folds(task, read_data(task, path, SILENT))


def test_the_three_layouts_hold_the_same_images(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 6)
    (tmp_path / "list.csv").write_text(
        "Path,Label\n" + "".join(f"pictures/{p.parent.name}/{p.name},{p.parent.name}\n" for p in folder.rglob("*.png")),
        encoding="utf-8",
    )
    archive = find_labelled_images(medmnist(tmp_path / "six.npz", train=6))
    labels = {"above": ["0"], "below": ["1"]}
    named = (tmp_path / "list.csv").read_text(encoding="utf-8")
    (tmp_path / "bare.csv").write_text(named.partition("\n")[2], encoding="utf-8")
    for other in [find_labelled_images(path) for path in (folder, tmp_path / "list.csv", tmp_path / "bare.csv")]:
        ours = {read_labelled(x).data.tobytes(): n for x, n in zip(archive, numbered(archive, labels), strict=True)}
        theirs = {read_labelled(x).data.tobytes(): n for x, n in zip(other, numbered(other, labels), strict=True)}
        assert ours == theirs


def test_labels_that_differ_in_case_alone_are_one(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 6)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    labels = ("Above", "above", "ABOVE ", "Below", "below", "below")
    rows = "".join(f"{file},{label}\n" for file, label in zip(files, labels, strict=True))
    (folder / "list.csv").write_text("path,label\n" + rows, encoding="utf-8")
    assert [image.label for image in find_labelled_images(folder / "list.csv")] == ["Above"] * 3 + ["Below"] * 3


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("header", [("path", "label", "patient"), None])
def test_a_table_may_have_semicolons_or_tabs(tmp_path: Path, separator: str, header: tuple[str, ...] | None) -> None:
    folder = class_folders(tmp_path / "pictures", 4)
    rows = [(p.relative_to(folder).as_posix(), p.parent.name, "p1") for p in sorted(folder.rglob("*.png"))]
    lines = [header, *rows] if header else [row[:2] for row in rows]
    text = "".join(separator.join(line) + "\n" for line in lines)
    (folder / "list.csv").write_text(text, encoding="utf-8")
    found = find_labelled_images(folder / "list.csv")
    assert [image.label for image in found] == ["above"] * 2 + ["below"] * 2
    assert {image.patient for image in found} == {"p1" if header else ""}


def test_images_beside_the_parts_of_the_data_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val"):
        class_folders(tmp_path / part, 4)
    (tmp_path / "notes").mkdir()
    assert {image.label for image in find_labelled_images(tmp_path)} == {"above", "below"}
    class_folders(tmp_path / "more", 4)
    with pytest.raises(InputError, match="has train and val, which are parts of data, and images in more beside them"):
        find_labelled_images(tmp_path)


def test_a_class_may_be_called_as_one_part_is(tmp_path: Path) -> None:
    for name, old in (("test", "above"), ("control", "below")):
        (class_folders(tmp_path / old, 4) / old).rename(tmp_path / name)
    for old in ("above", "below"):
        shutil.rmtree(tmp_path / old)
    assert {(image.label, image.split) for image in find_labelled_images(tmp_path)} == {("test", ""), ("control", "")}


def test_grey_pictures_among_coloured_ones_are_converted_and_told_of(task: ClassificationTask, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 8)
    for path in sorted(folder.rglob("*.png"))[::2]:
        PIL.Image.open(path).convert("RGB").save(path)
    listener = Listener()
    assert read_data(task, folder, listener).images.shape == (8, 1, SIDE, SIDE)
    assert "4 pictures are grey and 4 in colour" in listener.warnings[0]
    planned = plan_classifier("squares", folder, Wanted(), SILENT)[0]
    assert planned.channels == ["red", "green", "blue"]
    assert read_data(planned, folder, SILENT).images.shape[1] == 3


@pytest.mark.parametrize("spelt", [lambda path: path, lambda path: Path(path).name, lambda path: Path(path).stem])
def test_patients_of_images_in_folders_are_told_by_a_table(tmp_path: Path, spelt: Callable[[str], str]) -> None:
    folder = class_folders(tmp_path / "pictures", 8)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = "".join(f"{spelt(file)},p{n // 2}\n" for n, file in enumerate(files))
    (folder / "patients.csv").write_text("name,patient\n" + rows, encoding="utf-8")
    assert [image.patient for image in find_labelled_images(folder)] == [f"p{n // 2}" for n in range(8)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,patient\n00.png,a\n", "names no patient for above/02.png, below/01.png"),
        ("file_name,patient\n00.png,a\n", "it needs the columns name and patient"),
        ("name,patient\n00.png,a\n00.png,b\n", "names two patients for 00.png"),
        ("name,patient\n00.png,\n", "Line 2 of .*patients.csv has no patient"),
        ("name;patient\n00;a\n01;b\n02;a\n", "a line for 00, which may be above/00.png and below/00.png"),
    ],
)
def test_a_table_of_patients_that_leaves_doubt_is_refused(tmp_path: Path, content: str, words: str) -> None:
    folder = class_folders(tmp_path / "pictures", 3)
    if "which may be" in words:
        shutil.copy(folder / "below" / "01.png", folder / "below" / "00.png")
    (folder / "patients.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        find_labelled_images(folder)


def test_rgb_pictures_of_any_size_become_what_the_network_takes(task: ClassificationTask, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pictures", 8)
    for path in folder.rglob("*.png"):
        PIL.Image.open(path).convert("RGB").resize((40, 30)).save(path)
    assert read_data(task, folder, SILENT).images.shape == (8, 1, SIDE, SIDE)


def spoil_one_class(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"][:] = 1


def spoil_label(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"][3] = 7


def spoil_unpaired(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_labels"] = arrays["val_labels"][:-1]


def spoil_leak(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_images"][2] = arrays["train_images"][4]


def spoil_contradiction(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"][5] = arrays["train_images"][4]


def spoil_empty(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"][6] = 9


def spoil_nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"] = arrays["train_images"].astype(np.float32)
    arrays["train_images"][1, 0, 0] = np.nan


def spoil_volumes(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_images"] = np.repeat(arrays["val_images"][:, None], 5, axis=1)


def spoil_parts(arrays: dict[str, np.ndarray]) -> None:
    for key in list(arrays):
        del arrays[key]
    arrays["images"] = np.zeros(3)


def spoil_rare(arrays: dict[str, np.ndarray]) -> None:
    for part in ("train", "val"):
        arrays[f"{part}_labels"][:] = 0
    arrays["train_labels"][1] = 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_one_class, "one class only"),
        (spoil_label, "label '7' of train_0003 is none of the classes"),
        (spoil_unpaired, "6 images and 5 labels for val"),
        (spoil_leak, "train_0004 and val_0002 are the same image"),
        (spoil_contradiction, "train_0004 and train_0005 are the same image under two labels"),
        (spoil_empty, "train_0006 has the same value everywhere"),
        (spoil_nan, "train_0001 has values that are not finite"),
        (spoil_volumes, "val_0000 is of 5 x 12 x 12 voxels"),
        (spoil_parts, "is no MedMNIST file"),
        (spoil_rare, "1 images of below, and at least 2 are needed"),
    ],
)
def test_data_that_can_not_be_learnt_from_is_refused_in_one_sentence(
    task: ClassificationTask, tmp_path: Path, spoil: Callable[[dict[str, np.ndarray]], None], words: str
) -> None:
    path = medmnist(tmp_path / "squares.npz", train=10, val=6)
    arrays = dict(np.load(path))
    if spoil is spoil_one_class:
        arrays["val_labels"][:] = 1
    spoil(arrays)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=words) as caught:
        read_data(task, path, SILENT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "path,label\nmissing.png,0\n", r"Line 2 of .*a\.csv names .*missing\.png, which does not exist"),
        ("b.csv", "file\nx.png\n", "needs the columns path and label"),
        ("c.csv", "path,label\n,0\n", "Line 2 of .* has no path"),
        ("d.csv", "path,label\n", "names no image"),
        ("e.csv", "path,label,split\ne.csv,0,other\n", "the split 'other'"),
        ("f.npz", "no archive", "can't be read as a MedMNIST file"),
        ("g.txt", "x", "holds no labelled images"),
    ],
)
def test_files_that_list_no_images_are_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        find_labelled_images(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        find_labelled_images(tmp_path / "nowhere")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images in folders"):
        find_labelled_images(tmp_path)
    folder = class_folders(tmp_path / "pictures", 4)
    (folder / "third").mkdir()
    with pytest.raises(InputError, match="third stands for a class, but holds no image"):
        find_labelled_images(folder)


def test_the_same_image_twice_is_told_of(task: ClassificationTask, tmp_path: Path) -> None:
    images, labels = pictures(8)
    images[2] = images[0]
    np.savez(tmp_path / "twice.npz", train_images=images, train_labels=labels)
    listener = Listener()
    read_data(task, tmp_path / "twice.npz", listener)
    told = "1 images are there twice: train_0002; they count twice, and stay in one fold together."
    assert listener.warnings == [told]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "hinge"}, "'loss' = hinge"),
        ({"size": [28]}, "'size'"),
        ({"augmentation": {"shear": 1}}, "no augmentation 'shear' for classifiers; known are flip,"),
        ({"augmentation": {"elastic": 1}}, "elastic = 1; it has to be a number from 0 to 0.5"),
        ({"augmentation": {"flip": [2]}}, "a list of axes, among 0, 1"),
        ({"class_weights": [1.0]}, "'class_weights'"),
        ({"classes": [{"name": "a", "labels": ["0"]}, {"name": "b", "labels": ["0"]}]}, "'classes'"),
        ({"kind": "regression"}, "of no kind that MedAI trains"),
        ({"folds": "five"}, "a value of a wrong type"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_task(str(written(small_task(**changes), tmp_path)))


def test_a_fold_of_a_classifier_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data = written(small_task(), tmp_path), medmnist(tmp_path / "squares.npz", train=10)
    assert main(["train", str(path), "--data", str(data), "-o", str(tmp_path / "x"), "--fold", "1"]) == 2
    assert "over all 2 folds of its task squares together; leave --fold out" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_all_folds_of_a_classifier_may_be_asked_for(tmp_path: Path) -> None:
    path, data = written(small_task(epochs=1, distil_epochs=1), tmp_path), medmnist(tmp_path / "squares.npz", train=16)
    words = ["train", str(path), "--data", str(data), "-o", str(tmp_path / "x"), "--device", "cpu", "--quiet"]
    assert main([*words, "--fold", "all"]) == 0
    assert (tmp_path / "x.training" / "cross_validation" / "report.html").is_file()


def test_all_that_is_wrong_with_pictures_is_told_at_once(task: ClassificationTask, tmp_path: Path) -> None:
    images, labels = pictures(12)
    images[6], images[7, :], images[3] = images[0], 5, images[1]
    labels[3] = 1 - labels[1]
    arrays = {}
    for part, place in (("train", slice(0, 6)), ("val", slice(6, 12))):
        arrays |= {f"{part}_images": images[place], f"{part}_labels": labels[place]}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match="The data has 3 faults") as told:
        read_data(task, tmp_path / "bad.npz", SILENT)
    for line in (
        "train_0003: .* under two labels",
        "val_0000: .* the same image, one for train",
        "val_0001: .* same value",
    ):
        assert re.search(line, str(told.value))
