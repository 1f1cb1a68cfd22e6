"""The worker's own process: its environment, its streams, its memory, and an end that leaves nothing behind."""

import ctypes
import gc
import io
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import MutableMapping
from typing import NoReturn

from MedAILib.system_memory import trim_memory
from MedAILib.worker import protocol

GUARD_INTERVAL_S = 0.25
# What may still be written after the input closed, before the guard ends the group.
HANGUP_GRACE_S = 1.0
# Variables that make libraries load pickles, and those that point nnU-Net at the user's own folders.
UNWANTED = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "MONAI_ALLOW_PICKLE")
UNWANTED_PREFIX = "nnunet_"
PR_SET_PDEATHSIG = 1


def scrub(environment: MutableMapping[str, str]) -> None:
    """Take the variables that change what libraries load, or from where, out of an environment."""
    for name in list(environment):
        if name in UNWANTED or name.lower().startswith(UNWANTED_PREFIX):
            del environment[name]


def claim_streams() -> tuple[io.FileIO, io.FileIO]:
    """The process's input and output for the protocol alone.

    Whatever a library or a child prints from now on goes to standard error, from Python and from C, and whoever
    reads standard input finds it empty.
    """
    stdin, stdout = io.FileIO(os.dup(0), "rb"), io.FileIO(os.dup(1), "wb")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    protocol.widen_pipe(stdin.fileno())
    protocol.widen_pipe(stdout.fileno())
    return stdin, stdout


def own_folder() -> str:
    """A folder for all temporary files of this process and its libraries, which goes with it.

    The client makes it where it starts us by itself; libraries leave things behind (PyTorch an empty folder for its
    compiler), and a killed process can't clean up.
    """
    folder = os.environ.pop(protocol.FOLDER_VARIABLE, "") or tempfile.mkdtemp(prefix=protocol.FOLDER_PREFIX)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = folder
    tempfile.tempdir = None  # so that it is looked up again
    return folder


def give_back_memory() -> None:
    """Hand memory that is no longer used back to the system and the GPUs' drivers."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim_memory()


def end_with_parent(stdin: int, folder: str) -> None:
    """See to it that no process of ours outlives the parent or the client, however they end and however busy we are.

    `stdin` is the descriptor that the client writes to; its end is the client's. The group that gets ended is one of
    our own; the client says in the environment that it made one for us.
    """
    made_for_us = os.environ.pop(protocol.GROUP_VARIABLE, None) is not None
    if sys.platform == "win32":
        return
    if not made_for_us and os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    server = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads (numpy has some); this child needs none of what they may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _guard(server, stdin, folder)
    threading.Thread(target=_watch_parent, args=(os.getppid(), folder), name="parent", daemon=True).start()


def _watch_parent(parent: int, folder: str) -> None:
    """End everything once the parent is another than at the start, even where somebody keeps our input open."""
    while os.getppid() == parent:
        time.sleep(GUARD_INTERVAL_S)
    end_tree(folder)


def _guard(server: int, stdin: int, folder: str) -> NoReturn:
    """Life of the child that ends the group once the server is gone or its input closed, whatever the server does.

    The server sees its input's end by itself, unless a library keeps Python's lock.
    """
    try:
        os.closerange(0, stdin)
        os.closerange(stdin + 1, 256)
        hangup = select.poll()
        hangup.register(stdin, 0)  # asks for nothing: an end of the other side is told all the same
        ended = 0.0
        while os.getppid() == server and ended < HANGUP_GRACE_S:
            if hangup.poll(GUARD_INTERVAL_S * 1000):
                time.sleep(GUARD_INTERVAL_S)
                ended += GUARD_INTERVAL_S
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:
        os._exit(0)


def end_tree(folder: str) -> NoReturn:
    """End this process and its children at once, its temporary files with it; there is nothing to save."""
    sys.stderr.flush()
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(os.getpid())], check=False, capture_output=True)
    else:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)
