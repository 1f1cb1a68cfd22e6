"""Workers that others start: through ssh, by hand, by a parent that goes; and how surely each of them ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks.worker_kills import ordeal
from patience import LIMIT_S, quickest, until
from test_worker import STANDIN, alive, gated, make_volume, members, start, workers

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled
from MedAILib.request import RunRequest
from MedAILib.worker import protocol
from MedAILib.worker.client import WorkerClient, WorkerDied
from MedAILib.worker.destination import destination_of
from MedAILib.worker.hosting import scrub
from MedAILib.worker.protocol import Kind, Message
from MedAILib.worker.wire import pack_run

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups of POSIX")


@pytest.fixture
def ssh(tmp_path: Path) -> str:
    """A program called ssh that runs the command here, in a session that only its three streams lead to."""
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/Testing/worker_models/ssh.py "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def far_client(ssh: str) -> Iterator[WorkerClient]:
    """A client of a worker at the other end of the stand-in for ssh; afterwards nothing of it may be left."""
    with WorkerClient([ssh, "-p", "2222", "me@gpu-box", *STANDIN]) as client:
        yield client
        far = client.versions.get("pid", 0)
    until(lambda: members(far) == [])
    until(lambda: workers() == [])


@pytest.mark.parametrize(
    ("command", "destination"),
    [
        (["ssh", "gpu-box", "/opt/python", "-m", "MedAILib.worker.server"], "gpu-box"),
        (["/usr/bin/ssh", "-p", "22", "-oBatchMode=yes", "-4C", "me@gpu-box", "python"], "gpu-box"),
        (["ssh", "-4i", "key", "--", "ssh://me@gpu-box:2222", "python"], "gpu-box"),
        (["ssh.exe", "ssh://[fe80::1]:22", "python"], "[fe80::1]:22"),
        (["docker", "exec", "-i", "a box", "python"], "docker exec -i 'a box' python"),
        (["ssh"], "ssh"),
    ],
)
def test_destination_is_the_host_or_the_whole_command(command: list[str], destination: str) -> None:
    assert destination_of(command) == destination
    assert WorkerClient(command).destination == destination


def test_own_worker_has_no_destination() -> None:
    assert WorkerClient().destination == ""


def test_far_worker_answers_with_an_environment_that_is_scrubbed_there(far_client: WorkerClient) -> None:
    volume = make_volume()
    result = far_client.submit(RunRequest("threshold"), volume).result(LIMIT_S)
    assert np.array_equal(result.layers, volume.data > 0)
    names = result.provenance["environment"].split()
    assert "FAR" in names
    assert "nnUNet_results" not in names


def test_killed_ssh_ends_the_far_end(far_client: WorkerClient) -> None:
    for model in ("children", "stuck"):
        job = start(far_client, model, make_volume())
        far = far_client.versions["pid"]
        (near,) = workers()
        assert os.getpgid(far) != os.getpgid(near)
        os.kill(near, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            job.result(LIMIT_S)
        until(lambda far=far: members(far) == [])  # type: ignore[misc]


def test_cancel_of_a_far_kernel_answers_within_two_seconds_and_ends_the_far_end(far_client: WorkerClient) -> None:
    def cancel() -> float:
        job = start(far_client, "stuck", make_volume())
        far, asked = far_client.versions["pid"], time.monotonic()
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(LIMIT_S)
        answered = time.monotonic() - asked
        until(lambda: members(far) == [])
        return answered

    assert quickest(cancel, 2) < 2


def test_ssh_that_refuses_is_told_in_its_own_words(ssh: str) -> None:
    with WorkerClient([ssh, "closed", *STANDIN]) as client:
        job = client.submit(RunRequest("threshold"), make_volume())
        with pytest.raises(MedAIError, match=r"(?s)exit code 1.*Connection refused"):
            job.result(LIMIT_S)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nowhere/python"], "No such file"),
        ([str(Path(__file__))], "Permission denied"),
        ([str(ROOT)], "Permission denied"),
        ([], "command is empty"),
        (["a\0b"], "null byte"),
        ([""], "could not be started"),
    ],
)
def test_command_that_cannot_be_started_is_an_error_of_the_user_s(command: list[str], words: str) -> None:
    with WorkerClient(command) as client:
        job = client.submit(RunRequest("threshold"), make_volume())
        with pytest.raises(MedAIError, match=words):
            job.result(LIMIT_S)
        assert job.poll().state == "failed"


def test_worker_stuck_in_a_library_ends_when_its_input_closes() -> None:
    process = subprocess.Popen(
        STANDIN,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    body, arrays = pack_run(RunRequest("stuck"), make_volume())
    protocol.write_message(process.stdin, Message(Kind.RUN, "1", body, arrays))  # type: ignore[arg-type]
    while (message := protocol.read_message(process.stdout)) is not None:  # type: ignore[arg-type]
        if message.kind is Kind.PROGRESS and message.body["text"] == "Stuck":
            break
    process.stdin.close()
    until(lambda: members(process.pid) == [])
    process.wait(LIMIT_S)
    process.stdout.close()


def test_worker_ends_with_its_parent_where_its_input_stays_open() -> None:
    code = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=2).pid, flush=True); input()"
    inherited, ours = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", "import time\n" + code.replace("input()", "time.sleep(900)"), *STANDIN],
        stdin=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        until(lambda: len(members(worker)) == 2)  # the worker in its own group, and its guard
        parent.kill()
    os.close(inherited)
    until(lambda: members(worker) == [])
    os.close(ours)


def littered(client: WorkerClient) -> Path:
    """A temporary file that a run has made."""
    job = start(client, "litter", make_volume())
    until(lambda: job.poll().warnings)
    return Path(job.poll().warnings[0])


def test_temporary_files_go_with_a_killed_worker() -> None:
    with WorkerClient(STANDIN) as client:
        file = littered(client)
        assert file.parent.name.startswith(protocol.FOLDER_PREFIX) and file.exists()
        os.kill(client.versions["pid"], signal.SIGKILL)
        until(lambda: not file.parent.exists())


def test_temporary_files_go_with_a_far_worker_whose_ssh_was_killed(far_client: WorkerClient) -> None:
    file = littered(far_client)
    os.kill(workers()[0], signal.SIGKILL)
    until(lambda: not file.parent.exists())


def test_waiting_runs_and_cancel_work_while_a_far_run_computes(far_client: WorkerClient, tmp_path: Path) -> None:
    first = gated(far_client, tmp_path, make_volume("first"))
    second = far_client.submit(RunRequest("threshold"), make_volume("second"))
    until(lambda: second.poll().text == "Waiting for 1 other run")
    (tmp_path / "go").touch()
    assert first.result(LIMIT_S).provenance["image"] == "first"
    assert second.result(LIMIT_S).provenance["image"] == "second"
    assert alive(workers()[0]) and first.poll().state == "done"


def test_scrubbing_leaves_the_rest_alone() -> None:
    environment = {"MONAI_ALLOW_PICKLE": "1", "NNUNET_RAW": "x", "nnUNet_results": "y", "PATH": "/bin"}
    scrub(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.slow
def test_kills_and_cancels_at_random_moments_leave_nothing_and_the_next_run_is_right() -> None:
    tally = ordeal("children:25", kills=12, cancels=8, seed=3)
    assert (tally.kills, tally.cancels) == (12, 8)
    assert tally.failed > 0 and tally.cancelled > 0
    assert np.median(tally.deaths_s) < 1 and np.median(tally.cancels_s) < 2
