"""`medai generate`: images made by a model, of noise or of another image, as files."""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

from MedAILib.commands.targets import Named, files_of, writable
from MedAILib.errors import InputError, OutputError, SpecError
from MedAILib.files.images import (
    SLICE_ENDING,
    VOLUME_ENDINGS,
    read_channels,
    write_picture,
    write_scalar_volume,
)
from MedAILib.models.lean import import_monai_for_inference
from MedAILib.models.store import find_model
from MedAILib.output import is_folder, whole_files
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import GenerateOptions
from MedAILib.results import Generated
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume

SCENE_ENDING = ".mrb"
_ENDINGS = (*VOLUME_ENDINGS, SLICE_ENDING, SCENE_ENDING)


@dataclass(frozen=True)
class _Targets(Named):
    """Where everything goes: files of each image by their number, and one scene."""

    scene: Path | None = None
    files: tuple[tuple[int, Path], ...] = field(default=())

    def named(self) -> dict[str, Path]:
        scene = {} if self.scene is None else {"scene": self.scene}
        return {f"image {place}": path for place, (_, path) in enumerate(self.files)} | scene


def run_generate(options: argparse.Namespace, progress: Progress) -> None:
    """Make images as the command line asks; what can be known to be wrong is found before the work.

    Raises:
        MedAIError: the input, an option or the model is at fault.
        Cancelled: by `progress`.
    """
    asked = GenerateOptions(options.count, options.seed)
    if options.trust_code:
        raise InputError("A model that makes images executes no code of its own; leave out --trust-code.")
    source = find_model(options.model)
    spec = read_spec(source)
    volume = _input(options, spec, progress)
    name = spec.name if volume is None else f"{spec.name}-image"
    numbers = range(asked.seed, asked.seed + asked.count) if volume is None else (None,)
    names = [name if number is None else f"{name}-{number}" for number in numbers]
    inputs = [] if volume is None else files_of(options.inputs, volume)
    # Whether images are pictures is known when they are there; a folder's other files are looked at now.
    with writable(_targets(options.output, names, pictures=False), inputs):
        if options.own_process:
            import_monai_for_inference()
        from MedAILib.models.generate import generate, translate  # PyTorch: seconds that a wrong call need not wait for

        if volume is None:
            made = generate(source, asked, options.device, progress)
        else:
            made = translate(source, volume, None, options.device, progress)
        pictures = all(one.data.shape[:2] == (1, 1) for one in made.volumes) and volume is None
        targets = _targets(options.output, names, pictures)
        _write(made, volume, targets, progress)
    if options.json:
        print(json.dumps(_summary(made, targets)))


def _input(options: argparse.Namespace, spec: ModelSpec, progress: Progress) -> Volume | None:
    """The image that is to be translated; None for a model that makes images of noise."""
    if spec.task not in ("generation", "image-to-image"):
        raise SpecError(f"The model {spec.name} is for {spec.task}; it makes no images.")
    if spec.task == "generation":
        if options.inputs:
            raise InputError(f"The model {spec.name} makes images of noise; leave out {options.inputs[0]}.")
        return None
    if not options.inputs:
        raise InputError(f"The model {spec.name} makes an image of an image; name one.")
    if options.count != 1:
        raise InputError(f"The model {spec.name} makes one image of an image; leave out --count.")
    volume = read_channels(options.inputs, options.series, progress)
    if volume.channels != len(spec.channels):
        plural = "" if volume.channels == 1 else "s"
        raise InputError(
            f"{volume.name} has {volume.channels} channel{plural}, the model {spec.name} takes {len(spec.channels)}: "
            f"{', '.join(spec.channels)}; give one image for each, in this order."
        )
    return volume


def _targets(output: Path, names: list[str], pictures: bool) -> _Targets:
    """What an OUTPUT stands for, by its ending; a folder, or a name without an ending, gets all that apply.

    Raises:
        OutputError: an ending that stands for nothing, or a file for several images.
    """
    name = output.name.lower()
    if (is_folder(output) and not name.endswith((SCENE_ENDING, *_ENDINGS))) or "." not in name:
        endings = (".nii.gz", *((SLICE_ENDING,) if pictures else ()))
        files = tuple((number, output / f"{name}{end}") for number, name in enumerate(names) for end in endings)
        return _Targets(output / "scene.mrb", files)
    if name.endswith(SCENE_ENDING):
        return _Targets(output)
    if not name.endswith(_ENDINGS):
        raise OutputError(f"{output}: this ending stands for no kind of image; use {', '.join(_ENDINGS)}, or a folder.")
    if len(names) > 1:
        raise OutputError(f"{output}: {len(names)} images don't go into one file; give a folder, or .mrb.")
    return _Targets(files=((0, output),))


def _write(made: Generated, volume: Volume | None, targets: _Targets, progress: Progress) -> None:
    """Write every target; only when all are whole do they take their places."""
    total = len(targets.named())
    with whole_files() as files:
        for done, (number, target) in enumerate(targets.files):
            progress.step(done, total, "Writing")
            with files.writing(target) as part:
                if target.name.lower().endswith(SLICE_ENDING):
                    write_picture(made.volumes[number], part)
                else:
                    write_scalar_volume(made.volumes[number], part)
        if targets.scene is not None:
            from MedAILib.commands.scene_outputs import write_generated_scene  # MRML takes a while to load

            with files.writing(targets.scene) as part:
                write_generated_scene(made, volume, part)
        progress.step(total, total, "Writing")


def _summary(made: Generated, targets: _Targets) -> dict[str, object]:
    said = made.provenance
    return {
        "model": said["model"],
        "version": said["version"],
        "sha256": said["sha256"],
        **({"seeds": list(made.seeds)} if made.seeds else {"input": said["input"]}),
        "outputs": [str(path) for path in targets.named().values()],
        "provenance": said,
    }
