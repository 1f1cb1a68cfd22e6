"""What several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# How fast a machine is says nothing about the code: shared ones stop for a second now and then.
settings.register_profile("medai", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("medai")


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


@pytest.fixture(autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model store of the test's own, which does not exist yet; the user's stays untouched."""
    folder = tmp_path_factory.mktemp("store") / "models"
    monkeypatch.setenv("MEDAI_MODELS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def working_folder_is_kept() -> Iterator[None]:
    """No test, and so nothing that it calls, may leave the process in another working folder."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before
