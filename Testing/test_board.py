"""TensorBoard's files of a training are whole when it ends, however it ends."""

import logging
import os
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine

from MedAILib.errors import OutputError
from MedAILib.training.board import on_board

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")


def events(folder: Path) -> list[Any]:
    """What the files of a folder tell, in order: each record has its length, a sum, itself, a sum."""
    found = []
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def trainer() -> Engine:
    """Takes losses for batches, and is interrupted by one below 0."""

    def step(_: Engine, loss: float) -> dict[str, float]:
        if loss < 0:
            raise KeyboardInterrupt
        return {"loss": loss}

    return Engine(step)


def test_each_batch_s_loss_is_told_with_its_number(tmp_path: Path) -> None:
    engine = trainer()
    with on_board(engine, tmp_path, "fold_0"):  # type: ignore[arg-type]
        engine.run([0.5, 0.25], max_epochs=2)
    values = [(event.step, event.summary.value[0]) for event in events(tmp_path)[1:]]
    told = [(step, value.tag, value.simple_value) for step, value in values]
    assert told == [(1, "loss", 0.5), (2, "loss", 0.25), (3, "loss", 0.5), (4, "loss", 0.25)]
    assert list((tmp_path / "tensorboard" / "fold_0").iterdir())


def test_an_interrupted_training_leaves_its_losses_and_no_thread_to_wait_for(tmp_path: Path) -> None:
    engine, before = trainer(), threading.active_count()
    with pytest.raises(KeyboardInterrupt), on_board(engine, tmp_path):  # type: ignore[arg-type]
        engine.run([1.0, 0.5, -1.0])
    assert [event.step for event in events(tmp_path)[1:]] == [1, 2]
    assert threading.active_count() == before


def test_a_resumed_training_takes_the_place_of_what_came_after(tmp_path: Path) -> None:
    engine = trainer()
    engine.state.iteration = 6
    with on_board(engine, tmp_path):  # type: ignore[arg-type]
        pass
    begun = events(tmp_path)[1]
    assert begun.step == 7 and begun.session_log.status == event_pb2.SessionLog.START


def test_several_numbers_are_told_by_name(tmp_path: Path) -> None:
    engine = trainer()
    with on_board(engine, tmp_path, told=lambda output: {"one": output["loss"], "two": 2 * output["loss"]}):  # type: ignore[arg-type]
        engine.run([0.5])
    values = {event.summary.value[0].tag: event.summary.value[0].simple_value for event in events(tmp_path)[1:]}
    assert values == {"one": 0.5, "two": 1.0}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, of Linux")
def test_a_full_disk_ends_the_board_with_one_warning_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "tensorboardX.record_writer.open_file", lambda path: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
    )
    engine = trainer()
    with on_board(engine, tmp_path):  # type: ignore[arg-type]
        engine.run([0.5] * 200)
    assert engine.state.iteration == 200
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.partition(" can't")[0] for text in warned] == ["TensorBoard's files"]
    with pytest.raises(OutputError, match="the training's own"), on_board(engine, tmp_path):  # type: ignore[arg-type]
        raise OutputError("the training's own words")
