"""TensorBoard's files of a training, where tensorboardX is installed; a training does without where they can't be."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.engines import Trainer
from monai.handlers import TensorBoardStatsHandler

from MedAILib.training.processes import is_first

Told = Callable[[Any], Any]


@contextmanager
def on_board(
    trainer: Trainer, folder: Path, run: str = "", told: Told = lambda output: output["loss"]
) -> Iterator[None]:
    """While the block runs, each batch's loss goes into TensorBoard's files; of several processes the first writes.

    Args:
        trainer: what happened after its iteration is not shown, where a training is resumed.
        folder: of the training; the files lie in `tensorboard` in it.
        run: one of several networks, which has a folder of its own.
        told: what is written of a batch, from the trainer's output: a number, or numbers by name.
    """
    board = _board(folder / "tensorboard" / run, trainer.state.iteration) if is_first() else None
    if board is None:
        yield
        return
    TensorBoardStatsHandler(board, epoch_log=False, output_transform=told, tag_name="loss").attach(trainer)
    try:
        yield
    finally:
        board.close()


def _board(folder: Path, step: int) -> Any | None:
    try:
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415  an extra, slow to import
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415
        from tensorboardX.summary import scalar  # noqa: PLC0415
    except ImportError:
        return None

    class Board:
        """What tensorboardX's `SummaryWriter` does with numbers, at once and here.

        That one hands events to a thread, for which a training that is cancelled may wait for ever. Where the disk
        takes no more, which is said once, nothing more is written: how the training ends is told by the training.
        """

        def __init__(self) -> None:
            self._file: Any = None
            with self._giving_up():
                folder.mkdir(parents=True, exist_ok=True)
                self._file = EventsWriter(str(folder / "events"))
            if step:
                self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

        def add_scalar(self, name: str, value: float, number: int) -> None:
            self._write(number, summary=scalar(name, float(value)))

        def flush(self) -> None:
            with self._giving_up():
                if self._file is not None:
                    self._file.flush()

        def close(self) -> None:
            with self._giving_up():
                if self._file is not None:
                    self._file.close()

        def _write(self, number: int, **content: Any) -> None:
            with self._giving_up():
                if self._file is not None:
                    self._file.write_event(Event(wall_time=time.time(), step=int(number), **content))

        @contextmanager
        def _giving_up(self) -> Iterator[None]:
            try:
                yield
            except OSError as error:
                self._file = None
                logging.warning(f"TensorBoard's files can't be written to {folder}: {error.strerror}.")

    return Board()
