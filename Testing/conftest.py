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
    """The folder of real images (CONTRIBUTING.md says of which); tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MEDAI_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("there is no folder of real images; MEDAI_TEST_DATA names one (CONTRIBUTING.md)")
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
    yield from _session(monkeypatch, tmp_path, "MedAISegment")


@pytest.fixture
def classify_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The same with the module MedAIClassify."""
    yield from _session(monkeypatch, tmp_path, "MedAIClassify")


def _session(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str) -> Iterator[Any]:
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)
    from standin import session as sessions

    session = sessions.Session(monkeypatch, folder, ROOT / module / f"{module}.py")
    yield session
    session.close()
    assert sessions.slot_errors() == []


@pytest.fixture(scope="session")
def made_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models lie that several test files use; nobody changes them."""
    return tmp_path_factory.mktemp("made_models")


@pytest.fixture(scope="session")
def segmenter(made_models: Path) -> str:
    """A small real network with random weights: one channel, two structures."""
    from bundles import network_entry, random_bundle

    return str(random_bundle(made_models / "segmenter", network_entry("UNet", classes=3)))


@pytest.fixture(scope="session")
def bright_segmenter(made_models: Path) -> str:
    """Says 1 where the image is above 2.5, on the image's own voxels."""
    from bundles import threshold_bundle

    return str(threshold_bundle(made_models / "bright", 2.5, None))


@pytest.fixture(scope="session")
def picture_classifier(made_models: Path) -> str:
    """A classifier of single pictures with random weights."""
    from classifier_bundles import CLASSES, DENSENET, classifier_bundle

    return str(classifier_bundle(made_models / "pictures", DENSENET, CLASSES))


@pytest.fixture(scope="session")
def volume_classifier(made_models: Path) -> str:
    """A classifier of volumes with random weights."""
    from classifier_bundles import CLASSES, DENSENET, classifier_bundle

    return str(classifier_bundle(made_models / "volumes", DENSENET | {"spatial_dims": 3}, CLASSES, seed=1))


@pytest.fixture(scope="session")
def with_numbers(made_models: Path) -> str:
    """A classifier of single pictures that also wants an age and a sex."""
    from classifier_bundles import CLASSES, DENSENET, classifier_bundle

    network = {
        "_target_": "CovariateClassifier",
        "backbone": DENSENET | {"out_channels": 6},
        "features": 6,
        "covariates": 2,
        "out_channels": 3,
    }
    own = {"covariates": [{"name": "age", "mean": 50, "sd": 10}, {"name": "sex"}]}
    return str(classifier_bundle(made_models / "numbers", network, CLASSES, own=own))


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
