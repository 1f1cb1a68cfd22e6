"""What several test files share."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from standin import i18n

from MedAILib.system_memory import total_memory
from MedAILib.worker.client import WorkerClient

if TYPE_CHECKING:
    import slicer

ROOT = Path(__file__).parents[1]
# The pip package slicer-core lacks it, and texts of the window are translated by it; here they stand for themselves.
sys.modules.setdefault("slicer.i18n", i18n)

# How fast a machine is says nothing about the code: shared ones stop for a second now and then. The same cases come
# each time, so that a failure is the change's; `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("medai", settings.get_profile("explore"), derandomize=True)
settings.load_profile("medai")


# What one process of tests may occupy, with the commands and workers that it starts.
PROCESS_BYTES = 4 * 2**30


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` means: one for each core, as far as there is memory for them."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(cores, (total_memory() or PROCESS_BYTES) // PROCESS_BYTES))


def pytest_configure(config: pytest.Config) -> None:
    """Let commands that tests start hear an interrupt, also where a shell runs the tests in its background.

    Such a shell has its children ignore it, theirs with them, and Python leaves that as it finds it.
    """
    if getattr(config.option, "numprocesses", None):  # the cores are theirs; before they start, as they load PyTorch
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the project; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real images in ../shared/data are not here")
    return folder


@pytest.fixture(scope="session")
def hippocampus() -> Path:
    """The built-in model's folder."""
    return ROOT / "Resources" / "Models" / "hippocampus"


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    """A worker that stays warm for all tests that use it."""
    with WorkerClient() as client:
        yield client


@pytest.fixture(scope="module")
def behaving_client() -> Iterator[WorkerClient]:
    """A worker whose models do what their name says: "slow:300", "die:SIGKILL" (see worker_models)."""
    server = ROOT / "Testing" / "worker_models" / "standin.py"
    with WorkerClient([sys.executable, str(server)]) as client:
        yield client


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A Slicer session on the stand-in for its window; tests that need it skip where Qt can't be loaded."""
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)
    from standin import session as sessions

    session = sessions.Session(monkeypatch, tmp_path)
    yield session
    session.close()
    assert sessions.slot_errors() == []


@pytest.fixture
def classify_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The same with the module MedAIClassify."""
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)
    from standin import session as sessions

    session = sessions.Session(monkeypatch, tmp_path, ROOT / "MedAIClassify" / "MedAIClassify.py")
    yield session
    session.close()
    assert sessions.slot_errors() == []


@pytest.fixture
def scene() -> "Iterator[slicer.vtkMRMLScene]":
    """A fresh scene of MRML, without Slicer's window."""
    from MedAILib.scene.headless import headless_scene  # a second that tests without a scene need not wait for

    with headless_scene() as owner:
        yield owner.scene


@pytest.fixture(autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a model store of the test's own, which does not exist yet; the user's stays untouched."""
    folder = tmp_path_factory.mktemp("store") / "models"
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which has to be undone earlier
        patch.setenv("MEDAI_MODELS", str(folder))
        patch.setenv("MEDAI_CONFIG", str(folder.parent / "config"))
        yield folder


@pytest.fixture(autouse=True)
def working_folder_is_kept() -> Iterator[None]:
    """No test, and so nothing that it calls, may leave the process in another working folder."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before
