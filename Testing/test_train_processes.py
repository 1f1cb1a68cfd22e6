"""A training in two processes, started by torchrun, is one: the same files, nearly the same numbers, one end."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from balls import small, write_cases
from blobs import blob_folder
from labelled import medmnist, small_task
from test_train_detector import BACKBONE
from test_train_generator import small_generator

from MedAILib.cli import main
from MedAILib.errors import InputError
from MedAILib.models.weights import load_weights
from MedAILib.read_spec import read_spec
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.processes import SharedOrder, asked_processes, own_part, own_share

SHARED = ("--device", "cpu", "--quiet")
LONGEST_S = 400  # for what takes seconds on a machine that has nothing else to do


@dataclass(frozen=True)
class Together:
    """What two processes did: their folder, the exit codes of each, and what both wrote on standard error."""

    folder: Path
    codes: list[list[int]]
    told: str


def lines_of(folder: Path) -> dict[str, list[str]]:
    """Command lines by name, the models in `folder`, the data in the one above."""
    data = folder.parent
    words: dict[str, list[object]] = {
        "balls": [data / "balls.json", "--data", data / "balls"],
        "squares": [data / "squares.json", "--data", data / "squares.npz"],
        "blobs": [data / "blobs.json", "--data", data / "blobs"],
        "pictures": [data / "generator.json", "--data", data / "squares.npz"],
    }
    for name, told in words.items():
        told += ["-o", folder / name, "--epochs", 2 if name == "balls" else 1, "--device", "cpu", "--quiet"]
    return {name: ["train", *(str(word) for word in told)] for name, told in words.items()}


def written_data(folder: Path) -> None:
    """Small data and tasks of each kind."""
    cases = write_cases(folder / "balls", count=5)
    task = with_settings(small(cases, patch=[16, 16, 16]), read_settings(["folds=2", "patience=5"]))
    (folder / "balls.json").write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    medmnist(folder / "squares.npz", train=25, val=8)
    content = small_task(choice="best", networks=2, folds=1)
    (folder / "squares.json").write_text(json.dumps(content), encoding="utf-8")
    blob_folder(folder / "blobs", 5, 1, "boxes.csv")
    detection = {
        **{"kind": "detection", "name": "blobs", "title": "Blobs", "channels": ["MRI"], "classes": []},
        **{
            "patch": [32, 32, 32],
            "epochs": 2,
            "samples": 1,
            "backbone": BACKBONE,
            "width": 8,
            "returned_layers": [1],
            "patience": 2,
        },
    }
    for key in ("version", "description", "authors", "copyright", "licence", "data_source", "intended_use", "modality"):
        detection[key] = "none"
    detection |= {"references": [], "warnings": []}
    (folder / "blobs.json").write_text(json.dumps(detection), encoding="utf-8")
    small_generator(folder)


def in_two_processes(lines: list[list[str]], folder: Path) -> Together:
    folder.mkdir(exist_ok=True)
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    script = Path(__file__).parent / "two_processes.py"
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*words, str(folder / "lines.json"), str(folder)],
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    codes = [json.loads((folder / f"codes_{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    return Together(folder, codes, done.stderr)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """A training of each kind, one of a batch that can't be divided, and one that fails."""
    folder = tmp_path_factory.mktemp("processes")
    written_data(folder)
    lines = lines_of(folder / "two")
    uneven = [*lines["balls"], "--set", "batch=3"]
    broken = [*lines["balls"], "-o", str(folder / "two" / "broken")]
    return in_two_processes([*lines.values(), uneven, ["fail", *broken]], folder / "two")


@pytest.fixture(scope="module")
def alone(together: Together) -> Path:
    """The first of these trainings by one process."""
    lines = lines_of(together.folder.parent / "one")
    assert main(lines["balls"]) == 0
    return together.folder.parent / "one"


def losses(folder: Path) -> list[list[float]]:
    with (folder / "losses.csv").open(encoding="utf-8", newline="") as file:
        return [[float(x) for x in row] for row in list(csv.reader(file))[1:]]


def files_in(folder: Path) -> set[str]:
    every = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name.partition("events.out")[0] for name in every}


def test_both_processes_end_each_training_alike(together: Together) -> None:
    assert together.codes == [[0, 0, 0, 0, 2, 2]] * 2


def test_two_processes_go_on_to_the_same_bits(together: Together, tmp_path: Path) -> None:
    again = [*lines_of(together.folder)["balls"], "-o", str(together.folder / "broken"), "--resume"]
    assert in_two_processes([again], tmp_path / "again").codes == [[0], [0]]
    whole, resumed = (load_weights(together.folder / name / "models" / "model.pt") for name in ("balls", "broken"))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_two_processes_write_the_files_that_one_writes(together: Together, alone: Path) -> None:
    for name in ("balls", "balls.training"):
        assert files_in(together.folder / name) == files_in(alone / name)


@pytest.mark.parametrize("name", ["squares", "blobs", "pictures"])
def test_two_processes_train_models_of_every_kind(name: str, together: Together) -> None:
    assert read_spec(together.folder / name).name == name
    assert list((together.folder / f"{name}.training").glob("*.pt"))


def test_two_processes_learn_what_one_learns(together: Together, alone: Path) -> None:
    """Each learns from its half of every batch; only the part of the loss that is Dice over a batch differs."""
    two, one = (losses(folder / "balls.training") for folder in (together.folder, alone))
    assert len(one) == 2 and torch.allclose(torch.tensor(two), torch.tensor(one), rtol=0.02)


def test_what_two_processes_wrote_says_how_they_were_started(together: Together) -> None:
    card = (together.folder / "squares" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "torchrun --nproc-per-node 2 -m MedAILib train" in card and "2 processes" in card


def test_the_process_that_fails_ends_the_other_with_its_sentence(together: Together) -> None:
    told = [line for line in together.told.splitlines() if "The disk is full" in line]
    assert sorted(told) == [
        "medai: Process 0 of 2 ends, since process 1 did: The disk is full; free some space.",
        "medai: The disk is full; free some space.",
    ]


def test_what_both_processes_find_wrong_is_told_once(together: Together) -> None:
    assert together.told.count("A batch of 3 can't be divided among 2 processes; give --set batch=4") == 1


def test_a_resume_by_another_number_of_processes_is_refused(
    together: Together, capsys: pytest.CaptureFixture[str]
) -> None:
    line = lines_of(together.folder)["pictures"]
    before = load_weights(together.folder / "pictures.training" / "checkpoint.pt")
    assert main([*line, "--resume"]) == 2
    assert "processes differ" in capsys.readouterr().err
    after = load_weights(together.folder / "pictures.training" / "checkpoint.pt")
    assert torch.equal(
        before["losses"] if isinstance(before["losses"], torch.Tensor) else torch.tensor(before["losses"]),
        torch.tensor(after["losses"]),
    )


@pytest.mark.parametrize(("total", "drop_last", "batches"), [(8, False, 2), (9, False, 3), (9, True, 2), (3, False, 1)])
def test_processes_take_all_of_an_order_between_them(
    total: int, drop_last: bool, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    for rank in (0, 1):
        monkeypatch.setattr("MedAILib.training.processes.process_count", lambda: 2)
        monkeypatch.setattr("MedAILib.training.processes.process_number", lambda rank=rank: rank)
        order = SharedOrder(torch.utils.data.SequentialSampler(range(total)), 4, drop_last)
        taken.append(list(order))
        assert len(taken[-1]) == len(order) == 2 * batches
    every = [n for batch in range(batches) for part in taken for n in part[2 * batch : 2 * batch + 2]]
    assert every == [n % total for n in range(4 * batches)]


def test_a_last_batch_is_filled_up_with_what_the_epoch_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedAILib.training.processes.process_count", lambda: 2)
    monkeypatch.setattr("MedAILib.training.processes.process_number", lambda: 1)
    assert own_part(["e"], 4, ["a", "b", "c", "d"]) == ["b", "c"]
    with pytest.raises(InputError, match="give --set batch=4"):
        own_share(3, least=2)


def test_the_environment_of_torchrun_is_read_and_checked() -> None:
    told = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    assert asked_processes(told) == 2 and asked_processes({"WORLD_SIZE": "2"}) == 1
    with pytest.raises(InputError, match="RANK=5"):
        asked_processes(told | {"RANK": "5"})
