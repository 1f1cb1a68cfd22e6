"""The command line: what the words mean, and how each ending is told; the work is in `commands`."""

import argparse
import errno
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from MedAILib.errors import MedAIError, ToldError
from MedAILib.progress import Cancelled, Progress
from MedAILib.system_memory import keep_freed_memory
from MedAILib.terminal import TerminalProgress, WarningsOnly
from MedAILib.threads import wait_asleep
from MedAILib.version import VERSION

# argparse takes -2.7e-05 for an option; scripts write numbers so.
_NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
# What files and folders can be refused for, wherever a command comes upon it; no other error of the system is the
# user's to mend.
_OF_THE_SURROUNDINGS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.ELOOP,
}
NOTICE = "For research use only. Not a medical device."


def console() -> int:
    """`medai` as a program of its own; see `main`."""
    return main(own_process=True)


def main(arguments: Sequence[str] | None = None, own_process: bool = False) -> int:
    """Run one command.

    Args:
        arguments: the words after `medai`; None takes the program's own.
        own_process: nothing but this command runs in this process, so that it may load less.

    Returns:
        0 done; 2 the input, an option or the model is at fault; 130 cancelled. A defect of MedAI's own raises.
    """
    options = build_parser().parse_args(arguments, argparse.Namespace(own_process=own_process))
    if own_process:
        keep_freed_memory()
        wait_asleep()
        if not sys.warnoptions:  # what libraries warn their programmers of; `python -W default -m MedAILib` shows it
            warnings.simplefilter("ignore")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end tidies up as Ctrl+C does
    progress = WarningsOnly(sys.stderr) if options.quiet else TerminalProgress(sys.stderr)
    try:
        _run(options, progress)
    except ToldError:
        _end(progress)
        return 2
    except MedAIError as error:
        _end(progress)
        print(f"medai: {error}", file=sys.stderr)
        return 2
    except (Cancelled, KeyboardInterrupt):
        _end(progress)
        print("medai: cancelled", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone
        return 0
    except OSError as error:
        if error.filename is None or error.errno not in _OF_THE_SURROUNDINGS:
            raise
        _end(progress)
        print(f"medai: {error.filename} can't be used: {error.strerror}; choose another place.", file=sys.stderr)
        return 2
    _end(progress)
    return 0


def _end(progress: Progress) -> None:
    if isinstance(progress, TerminalProgress):
        progress.close()


def _run(options: argparse.Namespace, progress: Progress) -> None:
    # Each command imports PyTorch, MRML or neither; only the one that was asked for is loaded.
    match options.command:
        case "segment":
            from MedAILib.commands.segment import run_segment

            run_segment(options, progress)
        case "detect":
            from MedAILib.commands.detect import run_detect

            run_detect(options, progress)
        case "generate":
            from MedAILib.commands.generate import run_generate

            run_generate(options, progress)
        case "classify":
            from MedAILib.commands.classify import run_classify

            run_classify(options, progress)
        case "models":
            from MedAILib.commands.models import run_models

            run_models(options, progress)
        case "batch":
            from MedAILib.commands.batch import run_batch_command

            run_batch_command(options, progress)
        case "evaluate":
            from MedAILib.commands.evaluate import run_evaluate

            run_evaluate(options, progress)
        case "train":
            from MedAILib.commands.train import run_train

            run_train(options, progress)
        case "demo":
            from MedAILib.commands.demo import run_demo

            run_demo(options, progress)


class _Parser(argparse.ArgumentParser):
    """A grammar that says what is wrong with the words in one line, as every other error is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"medai: {message}; `{self.prog} --help` tells what it takes.\n")


def _path(words: str) -> Path:
    """A path that was named; an empty one, mostly a variable of a script that was not set, would be this folder."""
    if not words:
        raise argparse.ArgumentTypeError("the name is empty; name a file or a folder")
    return Path(words)


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = _Parser(prog="medai", description=f"Segment medical images with deep learning. {NOTICE}")
    parser.add_argument("--version", action="version", version=f"medai {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_segment(commands)
    _add_classify(commands)
    _add_detect(commands)
    _add_generate(commands)
    _add_batch(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_models(commands)
    return parser


def _command(commands: "argparse._SubParsersAction[_Parser]", name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {NOTICE}")
    command._negative_number_matcher = _NEGATIVE_NUMBER
    command.add_argument("--quiet", action="store_true", help="no progress on standard error; warnings stay")
    return command


def _add_demo(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "demo", "segment both hippocampi of a real brain MRI that a pip package ships")
    command.add_argument(
        "-o", "--output", type=_path, default=Path("demo"), metavar="DIR", help="folder for the results"
    )


def _add_segment(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "segment", "segment an image")
    command.add_argument(
        "inputs", nargs="+", type=_path, metavar="INPUT", help="image file or DICOM folder, per channel"
    )
    _add_model(command)
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        help=".nii.gz .nrrd .png (label map), .seg.nrrd (segmentation), .mrb (scene), .dcm (DICOM SEG); a folder: all",
    )
    command.add_argument(
        "--roi",
        nargs=6,
        type=float,
        metavar=("R", "A", "S", "dR", "dA", "dS"),
        help="box: centre and full size, mm, RAS",
    )
    command.add_argument("--series", metavar="UID", help="which DICOM series of a folder")
    command.add_argument("--probabilities", type=_path, metavar="FILE", help="also write each class's probability")
    command.add_argument("--uncertainty", type=_path, metavar="FILE", help="also write each voxel's entropy, 0 to 1")
    command.add_argument("--surfaces", type=_path, metavar="DIR", help="also write each segment's surface")
    command.add_argument("--table", type=_path, metavar="FILE", help="also write volumes and intensities as CSV")
    _add_run(command)
    command.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else there")


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--mirror", action="store_true", help="average over mirrored copies, as the model allows")
    command.add_argument("--overlap", type=float, metavar="SHARE", help="overlap of windows, 0 to below 1")
    command.add_argument(
        "--precision", default="auto", help="auto, float32, or half: faster, and nearly the same labels"
    )
    command.add_argument("--engine", default="auto", help="what computes the network on a CPU: auto, torch or openvino")
    command.add_argument("--no-postprocess", action="store_true", help="leave out the model's own clean-up")


def _add_batch(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "batch", "segment, classify or find things in every case of a folder or list")
    command.add_argument("source", type=_path, metavar="DIR_OR_LIST", help="folder of images, or .txt or .csv list")
    _add_model(command)
    command.add_argument("-o", "--output", required=True, type=_path, metavar="DIR", help="folder for the results")
    command.add_argument(
        "--kind",
        action="append",
        choices=(".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".seg.nrrd", ".mrb", ".dcm", ".json", ".csv"),
        help="what to write of each case; may be given several times (default: .nii.gz, or .json)",
    )
    command.add_argument("--slice", nargs=2, metavar=("AXIS", "N"), help="classification: one slice across I, J or K")
    command.add_argument("--each-slice", metavar="AXIS", help="classification: each slice across I, J or K by itself")
    command.add_argument("--covariates", type=_path, metavar="FILE", help="classification: CSV, a line for each case")
    command.add_argument("--resume", action="store_true", help="leave out cases that were done before")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="cases computed side by side")
    _add_run(command)


def _add_classify(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "classify", "classify an image, its slices or its frames")
    command.add_argument("inputs", nargs="+", type=_path, metavar="INPUT", help="image per channel, or frames in order")
    _add_model(command)
    command.add_argument(
        "-o", "--output", required=True, type=_path, help=".json .csv .mrb .dcm (DICOM SR); folder: all"
    )
    box = ("R", "A", "S", "dR", "dA", "dS")
    command.add_argument("--roi", nargs=6, type=float, metavar=box, help="look inside this box alone, mm, RAS")
    command.add_argument("--series", metavar="UID", help="which DICOM series of a folder")
    command.add_argument("--slice", nargs=2, metavar=("AXIS", "N"), help="one slice across I, J or K, from 0")
    command.add_argument("--each-slice", metavar="AXIS", help="each slice across I, J or K by itself")
    command.add_argument("--each-frame", action="store_true", help="each frame of a sequence by itself")
    command.add_argument("--covariates", type=_path, metavar="FILE", help="CSV with the numbers that a model asks for")
    command.add_argument("--explain", type=_path, metavar="FILE", help="also write which voxels speak for a class")
    command.add_argument("--method", help="grad-cam, grad-cam++, occlusion, integrated-gradients, lime or shap")
    command.add_argument("--explain-class", metavar="NAME", help="the class to explain, instead of the predicted one")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else there")


def _add_detect(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(
        commands, "detect", "find things in an image: a box around each, by a detector or by a segmentation's parts"
    )
    command.add_argument("inputs", nargs="+", type=_path, metavar="INPUT", help="image per channel")
    _add_model(command)
    command.add_argument(
        "-o", "--output", required=True, type=_path, help=".json .csv .mrb (scene) .dcm (SR); folder: all"
    )
    box = ("R", "A", "S", "dR", "dA", "dS")
    command.add_argument("--roi", nargs=6, type=float, metavar=box, help="look inside this box alone, mm, RAS")
    command.add_argument("--series", metavar="UID", help="which DICOM series of a folder")
    command.add_argument(
        "--smallest", type=float, default=0.0, metavar="ML", help="leave out findings below this volume"
    )
    command.add_argument(
        "--min-score", type=float, metavar="S", help="leave out what is less sure (0 to 1; the model's)"
    )
    command.add_argument(
        "--max-overlap",
        type=float,
        metavar="IOU",
        help="of findings that overlap by more the surest stays (the model's)",
    )
    _add_run(command)
    command.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else there")


def _add_generate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "generate", "make images from noise, or from another image")
    command.add_argument("inputs", nargs="*", type=_path, metavar="INPUT", help="image per channel; none: from noise")
    _add_model(command)
    command.add_argument(
        "-o", "--output", required=True, type=_path, help=".nii.gz .nrrd .png (picture), .mrb (scene); a folder: all"
    )
    command.add_argument("--count", type=int, default=1, metavar="N", help="how many images to make from noise")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="the first image's seed, then S + 1, ...")
    command.add_argument("--series", metavar="UID", help="which DICOM series of a folder")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else there")


def _add_train(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "train", "train a model")
    command.add_argument("task", metavar="TASK", help="a task's name or .json file; a new name: planned from the data")
    command.add_argument(
        "--data", required=True, type=_path, metavar="DIR", help="images and labels: a folder, .npz or .csv"
    )
    command.add_argument("-o", "--output", required=True, type=_path, metavar="BUNDLE", help="folder of the new model")
    command.add_argument(
        "--fold", metavar="K", help="which part of the cases to validate on (default: 0); all; or none"
    )
    command.add_argument("--epochs", type=int, metavar="N", help="instead of the task's number")
    command.add_argument("--resume", action="store_true", help="go on from the last epoch that was finished")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="instead of the task's: patch=64,64,64 (repeat)"
    )
    command.add_argument("--initial", type=_path, metavar="BUNDLE", help="start from this model's weights")
    command.add_argument("--plan-only", action="store_true", help="print and write the task, and stop")
    command.add_argument("--show-augmentation", type=_path, metavar="FILE", help="draw samples as .png, and stop")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _add_evaluate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "evaluate", "compare what a model finds with reference labels")
    _add_model(command)
    command.add_argument(
        "--data", required=True, type=_path, metavar="DIR", help="images and labels: a folder, .npz or .csv"
    )
    command.add_argument("-o", "--output", required=True, type=_path, metavar="REPORT_DIR", help="the report's folder")
    command.add_argument("--compare", metavar="MODEL", help="also run this model, and test the paired differences")
    command.add_argument("--only", type=_path, metavar="FILE", help="text file with the names of the cases to take")
    command.add_argument("--mirror", action="store_true", help="average over mirrored copies, as the model allows")
    command.add_argument("--split", choices=("train", "val", "test"), help="which part; by default test, else val")


def _add_models(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _command(commands, "models", "show, add, remove and check models")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = {}
    for name, text in (
        ("list", "a line for each model at hand or available"),
        ("info", "all about one, and whether it runs here"),
        ("add", "add a model to your store"),
        ("remove", "remove an added model"),
        ("clean", "remove unpacked archives, conversions and half downloads from your store"),
        ("verify", "compare models with their recorded SHA-256 and open them"),
        ("trust", "let a model execute code of its own, or take that back; the list without a name"),
    ):
        made[name] = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {NOTICE}")
        made[name].add_argument("--json", action="store_true", help="JSON on standard output")
        made[name].add_argument("--quiet", action="store_true", help="no progress on standard error; warnings stay")
    made["info"].add_argument("name", metavar="NAME", help="name or path")
    made["remove"].add_argument("name", metavar="NAME", help="name of an added model")
    made["verify"].add_argument("name", nargs="?", metavar="NAME", help="name or path; all models without it")
    made["trust"].add_argument("name", nargs="?", metavar="NAME", help="name or path; a SHA-256 with --revoke")
    made["trust"].add_argument("--revoke", action="store_true", help="take the permission back")
    add = made["add"]
    add.add_argument("source", metavar="PATH_OR_URL", help="folder, .zip, .tar.gz, https address, or an available name")
    add.add_argument("--name", help="name in the store, instead of its own")
    add.add_argument("--replace", action="store_true", help="replace the added model of that name")
    add.add_argument("--sha256", metavar="HEX", help="refuse the archive unless its SHA-256 is this one")


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("-m", "--model", required=True, metavar="MODEL", help="a model's name, folder or file")
    command.add_argument(
        "--trust-code", default="", metavar="SHA256", help="let the model of this SHA-256 execute code of its own"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
