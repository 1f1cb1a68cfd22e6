"""The worker as its client sees it, with real processes: right answers, and right ends however it ends."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from bundles import network_entry, random_bundle
from patience import LIMIT_S, quickest, until

from MedAILib.errors import DeviceError, InputError, MedAIError, SpecError, UntrustedCodeError
from MedAILib.models.open import open_model
from MedAILib.progress import Cancelled, Progress
from MedAILib.request import RunOptions, RunRequest
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Geometry, Volume
from MedAILib.worker import client as client_module
from MedAILib.worker import process as process_module
from MedAILib.worker import protocol
from MedAILib.worker.client import Job, WorkerClient, WorkerDefect, WorkerDied, WorkerStatus
from MedAILib.worker.protocol import Kind

ROOT = Path(__file__).parents[1]
STANDIN = [sys.executable, str(ROOT / "Testing" / "worker_models" / "standin.py")]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups of POSIX")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def members(group: int) -> list[int]:
    """Living processes of a process group."""

    def group_of(pid: int) -> int | None:
        try:
            return os.getpgid(pid)
        except ProcessLookupError:
            return None

    return [pid for pid in psutil.pids() if group_of(pid) == group and alive(pid)]


def workers() -> list[int]:
    """Worker processes that this process started."""
    return [child.pid for child in psutil.Process().children() if alive(child.pid)]


def make_volume(name: str = "Bild ü") -> Volume:
    data = np.arange(-12, 12, dtype=np.int16).reshape(1, 2, 3, 4)
    return Volume(data, Geometry((2, 3, 4), np.diag([0.5, 1, 3, 1])), name, {"Modality": "MR"})


@pytest.fixture
def volume() -> Volume:
    return make_volume()


@pytest.fixture
def client() -> Iterator[WorkerClient]:
    """A client of the stand-in worker; afterwards nothing of it may be left."""
    with WorkerClient(STANDIN) as client:
        yield client
    until(lambda: workers() == [])
    until(lambda: not any("MedAI" in thread.name for thread in threading.enumerate()))


def running(job: Job) -> bool:
    """Whether the model itself is at work, or was: who looks may have slept meanwhile."""
    state = job.poll()
    return state.state in ("running", "done") and state.total > 0 and not state.text.startswith("Loading")


def start(client: WorkerClient, model: str, volume: Volume) -> Job:
    job = client.submit(RunRequest(model), volume)
    until(lambda: running(job))
    return job


def test_result_is_the_model_s_own(client: WorkerClient, volume: Volume) -> None:
    request = RunRequest("threshold", "cpu", RunOptions(probabilities=True))
    job = client.submit(request, volume)
    result = job.result(LIMIT_S)
    assert np.array_equal(result.layers, volume.data > 0)
    assert result.geometry.same_grid_as(volume.geometry)
    assert result.labels[0].terminology is not None
    assert result.probabilities is not None
    assert result.provenance["image"] == "Bild ü"
    assert job.poll().state == "done"


def test_statistics_come_with_the_result_where_they_are_asked_for(client: WorkerClient, volume: Volume) -> None:
    job = client.submit(RunRequest("threshold", "cpu", statistics=True), volume)
    expected = segment_statistics(job.result(LIMIT_S), volume)
    assert job.statistics == expected
    assert expected[0].voxels > 0
    plain = client.submit(RunRequest("threshold", "cpu"), volume)
    plain.result(LIMIT_S)
    assert plain.statistics is None


def test_nothing_is_started_before_the_first_run() -> None:
    with WorkerClient(STANDIN) as client:
        client.free()
        client.restart()
        assert workers() == []


def test_model_stays_warm_until_it_is_freed(client: WorkerClient, volume: Volume) -> None:
    def opened() -> str:
        return client.submit(RunRequest("threshold"), volume).result(LIMIT_S).provenance["opened"]

    assert [opened(), opened()] == ["1", "1"]
    client.free()
    assert opened() == "2"


def test_model_is_ready_before_its_first_run_where_that_was_wished(client: WorkerClient, volume: Volume) -> None:
    client.warm("threshold")
    until(lambda: [model.name for model in client.status().models] == ["threshold"])
    assert client.submit(RunRequest("threshold"), volume).result(LIMIT_S).provenance["opened"] == "1"


def test_what_can_not_be_made_ready_is_left_for_the_run_to_say(client: WorkerClient, volume: Volume) -> None:
    client.warm("threshold", "no device")
    until(lambda: "KeyError" in client.log)
    assert client.submit(RunRequest("threshold"), volume).result(LIMIT_S).layers.any()


def test_model_is_opened_again_when_its_file_changed(client: WorkerClient, volume: Volume, tmp_path: Path) -> None:
    model = tmp_path / "threshold"
    answers = []
    for content in ("a", "a", "bb"):
        if not model.exists() or model.read_text() != content:
            model.write_text(content)
        answers.append(client.submit(RunRequest(str(model)), volume).result(LIMIT_S).provenance["opened"])
    assert answers == ["1", "1", "2"]


@pytest.fixture
def small_client() -> Iterator[WorkerClient]:
    """A client of a worker whose warm models may hold 100 bytes."""
    with WorkerClient([*STANDIN, "100"]) as client:
        yield client


def opened_by(client: WorkerClient, model: str, device: str = "auto") -> int:
    """How many models the worker had opened when this one ran."""
    done = client.submit(RunRequest(model, device), make_volume()).result(LIMIT_S)
    return int(done.provenance["opened"])


def test_models_stay_warm_as_far_as_their_bytes_allow(small_client: WorkerClient) -> None:
    models = ("holds:40", "holds:50", "holds:40", "holds:30", "holds:40", "holds:50")
    assert [opened_by(small_client, model) for model in models] == [1, 2, 1, 3, 1, 4]


def test_model_over_the_limit_is_warm_alone(small_client: WorkerClient) -> None:
    assert [opened_by(small_client, model) for model in ("holds:40", "holds:200", "holds:200", "holds:40")] == [
        1,
        2,
        2,
        3,
    ]


def test_model_that_needs_all_memory_sends_the_others_away(small_client: WorkerClient) -> None:
    assert [opened_by(small_client, model) for model in ("holds:40", "greedy", "greedy", "holds:40")] == [1, 2, 2, 3]


def test_names_of_one_device_share_one_warm_model(small_client: WorkerClient) -> None:
    assert [opened_by(small_client, "holds:60", device) for device in ("auto", "cpu", "cuda", "cpu")] == [1, 1, 2, 1]


def test_status_lists_warm_models_memory_and_devices(small_client: WorkerClient) -> None:
    assert small_client.status() == WorkerStatus()
    opened_by(small_client, "holds:40")
    opened_by(small_client, "holds:50")
    until(lambda: len(small_client.status().models) == 2)
    status = small_client.status()
    assert [(model.name, model.device, model.bytes) for model in status.models] == [
        ("holds:40", "cpu", 40),
        ("holds:50", "cpu", 50),
    ]
    assert (status.alive, status.pid) == (True, small_client.versions["pid"])
    assert 2**24 < status.rss_bytes < 2**32
    assert [device.device for device in status.devices] == ["cpu"]
    assert 0 < status.devices[0].free_bytes < status.devices[0].total_bytes
    small_client.free_memory()
    until(lambda: small_client.status().models == ())
    small_client.restart()
    assert small_client.status() == WorkerStatus()


def test_status_is_fresh_while_a_run_computes(client: WorkerClient, volume: Volume) -> None:
    start(client, "slow:500", volume)
    until(lambda: client.status().alive)


def test_relative_path_counts_from_the_client_s_folder_of_now(
    client: WorkerClient, volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.submit(RunRequest("threshold"), volume).result(LIMIT_S)  # the worker starts in another folder
    model = tmp_path / "models" / "holds"
    model.parent.mkdir()
    model.write_text("model")
    monkeypatch.chdir(tmp_path)
    client.submit(RunRequest("models/holds"), volume).result(LIMIT_S)
    stamp = client.submit(RunRequest(str(model)), volume).result(LIMIT_S).provenance["opened"]
    monkeypatch.undo()
    assert stamp == "2"  # the relative and the absolute path are one model


def test_stray_prints_go_to_the_log_and_not_into_the_stream(client: WorkerClient, volume: Volume) -> None:
    assert client.submit(RunRequest("chatty"), volume).result(LIMIT_S).layers.any()
    lines = ("printed from Python", "written to descriptor 1", "put by C", "echoed by a child")
    until(lambda: all(line in client.log for line in lines))


def gated(client: WorkerClient, folder: Path, volume: Volume) -> Job:
    """A run that is at work and stays so until the file "go" is in the folder."""
    return start(client, str(folder / "gated"), volume)


def test_progress_comes_with_an_estimate_of_the_time_left(client: WorkerClient, volume: Volume, tmp_path: Path) -> None:
    job = gated(client, tmp_path, volume)
    until(lambda: job.poll().seconds_left is not None)
    state = job.poll()
    assert (state.text, state.total) == ("Segmenting", 100_000)
    assert 0 < state.done < 100_000
    assert (state.seconds_left or 0) > 0
    (tmp_path / "go").touch()
    job.result(LIMIT_S)
    assert job.poll().seconds_left is None


def test_warnings_are_kept_in_order(client: WorkerClient, volume: Volume) -> None:
    job = client.submit(RunRequest("warn"), volume)
    job.result(LIMIT_S)
    assert job.poll().warnings == ("The image is smaller than the window.", "Wrong contrast?")


def test_environment_that_changes_what_libraries_load_is_scrubbed(
    client: WorkerClient, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "MONAI_ALLOW_PICKLE", "nnUNet_results", "nnUNet_raw"):
        monkeypatch.setenv(name, "1")
    names = client.submit(RunRequest("threshold"), volume).result(LIMIT_S).provenance["environment"].split()
    assert "PATH" in names
    assert [name for name in names if "nnUNet" in name or "WEIGHTS_ONLY" in name or "PICKLE" in name] == []
    assert protocol.GROUP_VARIABLE not in names


def test_large_volume_does_not_block_the_caller(client: WorkerClient) -> None:
    large = Volume(np.zeros((1, 64, 256, 256), np.int16), Geometry((64, 256, 256), np.eye(4)))
    with WorkerClient([sys.executable, "-c", "import time; time.sleep(900)"]) as deaf:
        job = deaf.submit(RunRequest("threshold"), large)  # who waited for it to be written would wait for ever
        assert job.poll().state == "queued"
        job.cancel()
        assert job.poll().state == "cancelled"
    assert client.submit(RunRequest("threshold"), large).result(LIMIT_S).layers.shape == large.data.shape


def test_worker_greets_before_torch_is_imported() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "MedAILib.worker.server"],
        bufsize=0,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        hello = protocol.read_message(process.stdout)  # type: ignore[arg-type]
    assert hello is not None
    assert (hello.kind, hello.body["torch"], hello.body["pid"]) == (Kind.HELLO, None, process.pid)


def test_worker_of_its_own_accord_runs_a_real_model_as_this_process_does(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(1, 12, 20, 16)).astype(np.float32)
    noise = Volume(data, Geometry((12, 20, 16), np.diag([-0.8, 1, 1.2, 1])), "noise")
    source = random_bundle(tmp_path / "model", network_entry())
    with WorkerClient() as client:
        result = client.submit(RunRequest(str(source), "cpu"), noise).result(LIMIT_S)
        assert client.versions["torch"] is not None
        with pytest.raises(InputError, match="no model 'nowhere'"):
            client.submit(RunRequest("nowhere", "cpu"), noise).result(LIMIT_S)
        with pytest.raises(SpecError):
            client.submit(RunRequest(str(tmp_path), "cpu"), noise).result(LIMIT_S)
    here = open_model(source, "cpu").run(noise, RunOptions(), Progress())
    assert len(np.unique(here.layers)) > 1
    assert np.array_equal(result.layers, here.layers)
    assert result.labels == here.labels


def test_error_of_the_user_s_keeps_its_kind_and_sentence(client: WorkerClient, volume: Volume) -> None:
    job = client.submit(RunRequest("user_error"), volume)
    with pytest.raises(DeviceError, match=r"^There is no device of that name here\.$"):
        job.result(LIMIT_S)
    assert (job.poll().state, job.poll().text) == ("failed", "There is no device of that name here.")


def test_error_that_the_client_does_not_know_comes_as_its_base(client: WorkerClient, volume: Volume) -> None:
    with pytest.raises(UntrustedCodeError):
        client.submit(RunRequest("private_error"), volume).result(LIMIT_S)


@pytest.mark.parametrize(
    ("model", "words"), [("defect", "RuntimeError: unexpected"), ("leave_politely", "SystemExit: 3")]
)
def test_defect_comes_with_its_traceback_and_the_worker_lives_on(
    client: WorkerClient, volume: Volume, model: str, words: str
) -> None:
    job = client.submit(RunRequest(model), volume)
    with pytest.raises(WorkerDefect, match=words):
        job.result(LIMIT_S)
    pid = client.versions["pid"]
    client.submit(RunRequest("threshold"), volume).result(LIMIT_S)
    assert client.versions["pid"] == pid


def test_memory_that_runs_out_is_said_in_a_sentence(client: WorkerClient, volume: Volume) -> None:
    with pytest.raises(MedAIError, match=r"Memory ran out.*region of interest"):
        client.submit(RunRequest("allocate"), volume).result(LIMIT_S)


def test_voxels_that_cannot_travel_are_refused_at_once(client: WorkerClient) -> None:
    odd = Volume(np.zeros((1, 1, 1, 1), np.longdouble), Geometry((1, 1, 1), np.eye(4)))
    with pytest.raises(InputError, match="float64"):
        client.submit(RunRequest("threshold"), odd)


def test_run_that_cannot_be_packed_fails_and_the_next_goes_through(client: WorkerClient, volume: Volume) -> None:
    bad = Volume(volume.data, volume.geometry, provenance={"n": 3})  # type: ignore[dict-item]
    job = client.submit(RunRequest("threshold"), bad)
    with pytest.raises(TypeError):
        job.result(LIMIT_S)
    client.submit(RunRequest("threshold"), volume).result(LIMIT_S)


def test_result_that_takes_longer_than_the_caller_waits_goes_on(
    client: WorkerClient, volume: Volume, tmp_path: Path
) -> None:
    job = gated(client, tmp_path, volume)
    with pytest.raises(TimeoutError, match="Segmenting"):
        job.result(0.01)
    (tmp_path / "go").touch()
    assert job.result(LIMIT_S).layers.any()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("leave:3", "exit code 3.*about to leave"),
        ("die:SIGSEGV", "SIGSEGV.*Segmentation fault"),
        ("die:SIGKILL", "SIGKILL.*memory"),
        ("torn", "protocol.*garbage in the mid"),
    ],
)
def test_death_is_told_with_last_words_and_the_next_run_has_a_fresh_worker(
    client: WorkerClient, volume: Volume, model: str, words: str
) -> None:
    with pytest.raises(WorkerDied, match=f"(?s){words}"):
        client.submit(RunRequest(model), volume).result(LIMIT_S)
    assert client.submit(RunRequest("threshold"), volume).result(LIMIT_S).provenance["opened"] == "1"


def test_death_is_noticed_within_a_second(client: WorkerClient, volume: Volume) -> None:
    def death() -> float:
        job = start(client, "kernel", volume)
        killed = time.monotonic()
        os.kill(client.versions["pid"], signal.SIGKILL)
        with pytest.raises(WorkerDied):
            job.result(LIMIT_S)
        return time.monotonic() - killed

    assert quickest(death, 1) < 1


def test_death_takes_the_worker_s_children_along(client: WorkerClient, volume: Volume) -> None:
    job = start(client, "children", volume)
    pid = client.versions["pid"]
    assert len(members(pid)) >= 3  # worker, guard, child
    os.kill(pid, signal.SIGKILL)
    until(lambda: members(pid) == [])
    until(lambda: job.poll().state == "failed")


def test_runs_behind_a_death_move_to_a_fresh_worker(client: WorkerClient, volume: Volume) -> None:
    job = start(client, "kernel", volume)
    behind = [client.submit(RunRequest("threshold"), make_volume(str(n))) for n in range(3)]
    os.kill(client.versions["pid"], signal.SIGKILL)
    assert [job.result(LIMIT_S).provenance["image"] for job in behind] == ["0", "1", "2"]
    assert job.poll().state == "failed"


def test_worker_that_can_compute_no_more_ends_and_the_next_run_has_a_fresh_one(
    client: WorkerClient, volume: Volume
) -> None:
    assert client.submit(RunRequest("unwell"), volume).result(LIMIT_S).layers.any()
    assert client.submit(RunRequest("threshold"), volume).result(LIMIT_S).provenance["opened"] == "1"
    assert "illegal memory access" in client.log


def test_run_that_meets_a_worker_just_dead_has_a_fresh_one(client: WorkerClient, volume: Volume) -> None:
    client.submit(RunRequest("threshold"), volume).result(LIMIT_S)
    os.kill(client.versions["pid"], signal.SIGKILL)
    assert client.submit(RunRequest("threshold"), volume).result(LIMIT_S).layers.any()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nowhere/python"], "could not be started.*No such file"),
        ([sys.executable, "-c", "raise SystemExit('no MedAI here')"], "exit code 1.*no MedAI here"),
        ([sys.executable, "-c", "print('Welcome'); input()"], "Welcome.*standard output"),
    ],
)
def test_command_that_starts_no_worker_fails_every_run_with_a_reason(
    volume: Volume, command: list[str], words: str
) -> None:
    with WorkerClient(command) as client:
        jobs = [client.submit(RunRequest("threshold"), volume) for _ in range(2)]
        for job in jobs:
            with pytest.raises(WorkerDied, match=f"(?s){words}"):
                job.result(LIMIT_S)


def test_worker_may_be_started_through_another_program(volume: Volume) -> None:
    with WorkerClient(["/bin/sh", "-c", '"$@"; exit 0', "sh", *STANDIN]) as client:
        job = start(client, "stuck", volume)
        pid = client.versions["pid"]
        job.cancel()
        until(lambda: not alive(pid))
    assert workers() == []


def test_worker_and_its_children_end_with_a_killed_parent() -> None:
    code = """
        import sys, time, numpy as np
        from MedAILib.request import RunRequest
        from MedAILib.volume import Geometry, Volume
        from MedAILib.worker.client import WorkerClient
        client = WorkerClient(sys.argv[2:])
        volume = Volume(np.zeros((1, 1, 1, 1)), Geometry((1, 1, 1), np.eye(4)))
        job = client.submit(RunRequest(sys.argv[1]), volume)
        while job.poll().total == 0 or job.poll().text.startswith("Loading"):
            time.sleep(0.01)
        print(client.versions["pid"], flush=True)
        time.sleep(900)
        """
    for model in ("children", "stuck"):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), model, *STANDIN],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as parent:
            assert parent.stdout is not None
            worker = int(parent.stdout.readline())
            assert alive(worker)
            parent.kill()
        until(lambda worker=worker: members(worker) == [])  # type: ignore[misc]


def test_worker_ends_when_its_input_closes() -> None:
    process = subprocess.Popen(
        STANDIN, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdin is not None
    process.stdin.close()
    process.wait(LIMIT_S)
    until(lambda: members(process.pid) == [])


@pytest.mark.parametrize("model", ["slow", "kernel", "stuck", "children"])
def test_cancel_answers_within_two_seconds(client: WorkerClient, volume: Volume, model: str) -> None:
    returned = []

    def cancel() -> float:
        job = start(client, model, volume)
        asked = time.monotonic()
        job.cancel()
        returned.append(time.monotonic() - asked)
        with pytest.raises(Cancelled):
            job.result(LIMIT_S)
        assert job.poll().state == "cancelled"
        return time.monotonic() - asked

    assert quickest(cancel, 2) < 2
    assert min(returned) < 0.5  # it does not wait out the grace period


def test_cancel_that_the_model_notices_keeps_the_worker_warm(
    client: WorkerClient, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CANCEL_GRACE_S", LIMIT_S)
    job = start(client, "slow", volume)
    pid = client.versions["pid"]
    job.cancel()
    client.submit(RunRequest("threshold"), volume).result(LIMIT_S)
    assert (job.poll().state, client.versions["pid"]) == ("cancelled", pid)


def test_waiting_run_says_its_place_and_is_cancelled_at_once(
    client: WorkerClient, volume: Volume, tmp_path: Path
) -> None:
    first = gated(client, tmp_path, volume)
    second = client.submit(RunRequest("slow"), volume)
    third = client.submit(RunRequest("threshold"), volume)
    until(lambda: third.poll().text == "Waiting for 2 other runs")
    second.cancel()
    assert second.poll().state == "cancelled"
    until(lambda: third.poll().text == "Waiting for 1 other run")
    (tmp_path / "go").touch()
    assert first.result(LIMIT_S).layers.any()
    assert third.result(LIMIT_S).layers.any()


def test_cancel_of_a_waiting_run_leaves_the_busy_worker_alone(
    client: WorkerClient, volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CANCEL_GRACE_S", 0.0)
    first = gated(client, tmp_path, volume)
    pid = client.versions["pid"]
    waiting = client.submit(RunRequest("kernel"), volume)
    waiting.cancel()
    until(lambda: waiting.grace is None or waiting.grace.finished.is_set())  # its grace is over
    (tmp_path / "go").touch()
    assert first.result(LIMIT_S).layers.any()
    assert client.versions["pid"] == pid


def test_runs_behind_a_cancelled_kernel_move_to_a_fresh_worker(client: WorkerClient, volume: Volume) -> None:
    job = start(client, "stuck", volume)
    behind = client.submit(RunRequest("threshold"), make_volume("behind"))
    job.cancel()
    assert behind.result(LIMIT_S).provenance["image"] == "behind"
    assert job.poll().state == "cancelled"


def test_cancel_before_the_worker_is_up_never_starts_the_run(client: WorkerClient, volume: Volume) -> None:
    job = client.submit(RunRequest("leave:1"), volume)
    job.cancel()
    assert job.poll().state == "cancelled"
    assert client.submit(RunRequest("threshold"), volume).result(LIMIT_S).layers.any()


def test_cancel_of_a_finished_run_changes_nothing(client: WorkerClient, volume: Volume) -> None:
    job = client.submit(RunRequest("threshold"), volume)
    job.result(LIMIT_S)
    job.cancel()
    assert job.poll().state == "done"
    assert job.result().layers.any()


def test_restart_fails_the_running_run_and_moves_the_waiting_one(client: WorkerClient, volume: Volume) -> None:
    job = start(client, "kernel", volume)
    behind = client.submit(RunRequest("threshold"), volume)
    client.restart()
    with pytest.raises(WorkerDied, match="was restarted"):
        job.result(LIMIT_S)
    assert behind.result(LIMIT_S).layers.any()


def test_close_cancels_everything_and_takes_no_more(volume: Volume) -> None:
    client = WorkerClient(STANDIN)
    first = start(client, "children", volume)
    second = client.submit(RunRequest("threshold"), volume)
    pid = client.versions["pid"]
    client.close()
    client.close()
    assert [first.poll().state, second.poll().state] == ["cancelled", "cancelled"]
    until(lambda: members(pid) == [])
    with pytest.raises(RuntimeError, match="closed"):
        client.submit(RunRequest("threshold"), volume)


def test_close_while_the_worker_starts_leaves_nothing(volume: Volume) -> None:
    for _ in range(5):
        client = WorkerClient(STANDIN)
        client.submit(RunRequest("threshold"), volume)
        client.close()
        until(lambda: workers() == [])


LATE = """
import sys, numpy as np
from MedAILib.results import Segmentation
from MedAILib.volume import Geometry
from MedAILib.worker import protocol, wire, wire_results
from MedAILib.worker.protocol import Kind, Message
stdin, stdout = open(0, "rb", buffering=0), open(1, "wb", buffering=0)
protocol.write_message(stdout, Message(Kind.HELLO, body={"pid": 0}))
answers = []
while (message := protocol.read_message(stdin)) is not None:
    if message.kind is Kind.RUN:
        request, volume, _ = wire.unpack_run(message)
        layers = np.full((1, *volume.geometry.shape_kji), len(answers) + 1, np.uint8)
        body, arrays = wire_results.pack_result(Segmentation(layers, (), volume.geometry))
        answers.append(Message(Kind.RESULT, message.run, body, arrays))
        protocol.write_message(stdout, Message(Kind.STARTED, message.run))
    if len(answers) == 2:  # the first run's answer only now, twice, and once for a run that never was
        stray = Message(Kind.RESULT, "stray", answers[0].body, answers[0].arrays)
        for answer in (answers[0], answers[0], stray, answers[1], answers[0]):
            protocol.write_message(stdout, answer)
        answers.clear()
"""


SLOW_TO_BEGIN = """
import sys
from MedAILib.worker import protocol
from MedAILib.worker.protocol import Kind, Message
stdin, stdout = open(0, "rb", buffering=0), open(1, "wb", buffering=0)
protocol.write_message(stdout, Message(Kind.HELLO, body={"pid": 0}))
while (message := protocol.read_message(stdin)) is not None:
    if message.kind is Kind.CANCEL:  # it had begun before it heard of that, and hears nothing while it computes
        protocol.write_message(stdout, Message(Kind.STARTED, message.run))
    if message.kind is Kind.FREE:
        open(sys.argv[1], "w").close()
"""


def test_run_that_begins_after_its_cancel_s_grace_does_not_keep_the_worker(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CANCEL_GRACE_S", 0.0)
    with WorkerClient([sys.executable, "-c", SLOW_TO_BEGIN, str(tmp_path / "freed")]) as client:
        job = client.submit(RunRequest("a"), volume)
        until(lambda: client.versions)
        (pid,) = workers()
        job.cancel()
        assert job.poll().state == "cancelled"
        until(lambda: not alive(pid))


def test_runs_that_wait_for_a_worker_just_started_move_to_a_fresh_one_at_a_restart(
    client: WorkerClient, volume: Volume
) -> None:
    job = client.submit(RunRequest("threshold"), volume)
    client.restart()
    assert job.result(LIMIT_S).layers.any()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("at", ["received", "start"])
def test_defect_in_what_follows_a_worker_ends_it_and_keeps_nobody_waiting(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def received(process: process_module.WorkerProcess, message: protocol.Message) -> None:
        raise KeyError("a defect")

    def start(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    reasons: list[str] = []
    if at == "start":
        monkeypatch.setattr(process_module.WorkerProcess, "_follow", start)
    worker = process_module.WorkerProcess(tuple(STANDIN), received, lambda _, reason: reasons.append(reason))
    worker.start()
    until(lambda: reasons)
    worker.join(LIMIT_S)
    assert reasons == ["could not be talked with" if at == "received" else "could not be followed to its end"]
    assert workers() == []


def test_late_answer_never_reaches_another_run(volume: Volume) -> None:
    with WorkerClient([sys.executable, "-c", LATE]) as client:
        first = client.submit(RunRequest("a"), volume)
        until(lambda: first.poll().state == "running")
        first.cancel()
        second = client.submit(RunRequest("b"), volume)
        assert second.result(LIMIT_S).layers.max() == 2
        until(lambda: first.poll().state == "cancelled")


def test_many_threads_may_use_one_client(client: WorkerClient) -> None:
    names: list[str] = []

    def use(name: str) -> None:
        names.append(client.submit(RunRequest("threshold"), make_volume(name)).result(LIMIT_S).provenance["image"])

    threads = [threading.Thread(target=use, args=(str(n),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(names, key=int) == [str(n) for n in range(12)]


@pytest.mark.slow
def test_kills_and_cancels_at_random_moments_end_every_run_rightly(client: WorkerClient) -> None:
    chance = random.Random(7)
    groups = set()
    deaths, ends = [], []
    for number in range(15):
        job = client.submit(RunRequest("children:25"), make_volume(f"killed {number}"))
        behind = client.submit(RunRequest("threshold"), make_volume(f"behind {number}"))
        time.sleep(chance.uniform(0, 0.45))  # the random moment: of start-up, of the run, or after it
        groups.update(workers())
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        for each in (job, behind):
            try:
                assert each.result(LIMIT_S).layers.sum() == 11
                assert each.poll().state == "done"
            except WorkerDied:
                assert each.poll().state == "failed"
                deaths.append(time.monotonic() - killed)
    for number in range(15):
        model = "stuck" if number % 10 == 5 else "slow:40"
        job = client.submit(RunRequest(model), make_volume(f"cancelled {number}"))
        time.sleep(chance.uniform(0, 0.15))
        asked = time.monotonic()
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(LIMIT_S)
        ends.append(time.monotonic() - asked)
        assert client.submit(RunRequest("threshold"), make_volume(str(number))).result(LIMIT_S).provenance[
            "image"
        ] == str(number)
        groups.update(workers())
    assert np.median(deaths) < 1 and np.median(ends) < 2  # a single one may meet a machine that halts
    client.close()
    until(lambda: not any(members(group) for group in groups))


def test_python_of_the_worker_is_found_inside_slicer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_module.worker_python() == sys.executable
    slicer = tmp_path / "bin" / "PythonSlicer"
    slicer.parent.mkdir()
    slicer.write_text("#!/bin/sh\n")
    slicer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "SlicerApp-real"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "lib" / "Python"))
    assert process_module.worker_python() == str(slicer)
    slicer.unlink()
    with pytest.raises(MedAIError, match="PythonSlicer"):
        process_module.worker_python()
