"""Training of a RetinaNet: MONAI's detector, losses, matcher and trainer; averaged weights, resumable at each epoch."""

from collections.abc import Sequence
from typing import Any

from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from torch import Tensor

from MedAILib.progress import Progress
from MedAILib.training.board import on_board
from MedAILib.training.checkpoint import begin, identity_of, require_room
from MedAILib.training.detection_course import DetectionCourse
from MedAILib.training.detection_data import Batches, Sample
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.processes import joined, own_share, wait_for_all
from MedAILib.training.taught_detector import on_device, whole_loss
from MedAILib.training.training_run import TrainingRun


class _Losses(SimpleInferer):
    """Hands the detector its images and what is in them; it answers with its losses."""

    def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
        return network(inputs, *args, **kwargs)


def train_detector(
    task: DetectionTask,
    samples: Sequence[Sample],
    run: TrainingRun,
    progress: Progress,
    watched: Sequence[Sample] = (),
) -> dict[str, Tensor]:
    """Train the task's network and return its averaged weights by name (float32, on the CPU).

    Where the task stops early, they are those of the epoch in which the loss on `watched` was lowest. A checkpoint
    stands in `run.folder` after every epoch; `run.resume` goes on from it, to the same bits on a CPU.

    Args:
        task: nothing in it is left to be planned; its number of epochs holds.
        samples: see `prepare_image`.
        run: where and how.
        progress: hears of every step.
        watched: images that are not learnt from and decide when to stop; only for a task with patience.

    Raises:
        InputError: the checkpoint to resume from is missing or of another training.
        ModelError: the loss is not finite any more, or the network can't be built.
        OutputError: the disk does not take the checkpoint.
        Cancelled: by `progress`, between two batches.
    """
    own_share(task.batch)  # a batch that can't be divided is told first
    course = DetectionCourse(task, run, progress, samples, watched if task.patience else ())
    require_room(run.folder, sum(p.nbytes for p in course.network.parameters()))
    initial = str(run.initial.resolve()) if run.initial else ""
    identity = identity_of(task, cases=run.cases, initial=initial, data=run.data_sha256)
    state = begin(run.folder, identity, run.resume)
    if state is not None:
        course.take_up(state)
    if not course.over:
        _go_on(course, progress)
    return course.weights


def _go_on(course: DetectionCourse, progress: Progress) -> None:
    """Run the epochs that are left."""
    task, detector, done = course.task, course.detector, len(course.records)
    batches = Batches(course.samples, task, done)
    length = len(batches)
    steps = task.epochs * length
    trainer = SupervisedTrainer(
        device=course.device,
        max_epochs=task.epochs,
        train_data_loader=batches,
        epoch_length=length,
        network=joined(detector, course.device, some_unused=True),  # without findings no box is learnt from
        optimizer=course.optimizer,
        loss_function=lambda losses, _: whole_loss(task, detector, losses),
        prepare_batch=on_device,
        inferer=_Losses(),
        decollate=False,
        accumulation_steps=task.accumulate,
    )
    trainer.state.epoch, trainer.state.iteration, trainer.state.epoch_length = done, done * length, length

    @trainer.on(Events.ITERATION_STARTED)
    def before() -> None:
        course.before_step(trainer.state.iteration, steps)

    def steps_now() -> bool:
        place = (trainer.state.iteration - 1) % length + 1
        return place % task.accumulate == 0 or place == length

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def limit() -> None:
        if steps_now():
            course.limit_gradients()

    @trainer.on(Events.ITERATION_COMPLETED)
    def after() -> None:
        progress.step(trainer.state.iteration, steps, course.after_step(trainer.state.output, steps_now()))

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        course.after_epoch()
        if course.over:
            trainer.terminate()

    with on_board(trainer, course.run.folder):
        try:
            trainer.run()
            wait_for_all()
        except ValueError as error:
            if "NaN or Inf" not in str(error):  # MONAI's network looks at its own output
                raise
            raise course.stopped() from error
