"""What several test files share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import slicer

ROOT = Path(__file__).parents[1]


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


@pytest.fixture
def scene() -> "Iterator[slicer.vtkMRMLScene]":
    """A fresh scene of MRML, without Slicer's window."""
    from MedAILib.scene.headless import headless_scene  # a second that tests without a scene need not wait for

    with headless_scene() as owner:
        yield owner.scene


@pytest.fixture(autouse=True)
def working_folder_is_kept() -> Iterator[None]:
    """No test, and so nothing that it calls, may leave the process in another working folder."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before
