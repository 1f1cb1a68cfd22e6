"""Files appear whole or not at all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from MedAILib.errors import OutputError
from MedAILib.output import whole_file, whole_files

DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from MedAILib.errors import OutputError
from MedAILib.output import whole_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_file(Path(sys.argv[1])) as part:
        part.write_bytes(b"x" * 5000)
except OutputError as error:
    print(error)
"""


@pytest.fixture
def nobody() -> Iterator[None]:
    """The rights of a user who owns nothing: root may write everywhere."""
    if not hasattr(os, "seteuid"):
        pytest.skip("needs the file permissions of POSIX systems")
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_successful_block_leaves_exactly_the_target(tmp_path: Path) -> None:
    with whole_file(tmp_path / "labels.nii.gz") as part:
        assert part.name == "labels.nii.gz"
        part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nii.gz"]
    assert (tmp_path / "labels.nii.gz").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("writer broke"), KeyboardInterrupt()])
def test_failing_block_leaves_an_older_file_untouched(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "labels.nrrd"
    target.write_text("old")
    with pytest.raises(type(error)), whole_file(target) as part:
        part.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nrrd"]


def test_older_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old and longer")
    with whole_file(target) as part:
        part.write_text("new")
    assert target.read_text() == "new"


def test_link_stays_a_link_and_its_file_changes(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with whole_file(tmp_path / "link.csv") as part:
        part.write_text("new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new"


def test_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing came out"), whole_file(tmp_path / "a.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_absent_folder_is_named(tmp_path: Path) -> None:
    target = tmp_path / "absent" / "a.csv"
    with pytest.raises(OutputError, match=r"the folder .*absent does not exist; create it"), whole_file(target):
        pass


def test_folder_as_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder; name a file"), whole_file(tmp_path):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_device_as_target_is_refused_and_survives() -> None:
    with pytest.raises(OutputError, match="no ordinary file"), whole_file(Path("/dev/full")):
        pass
    assert not Path("/dev/full").is_file()


def test_folder_without_write_permission_is_told(tmp_path: Path, nobody: None) -> None:
    folder = Path("/usr") if os.getuid() == 0 else tmp_path / "locked"
    if os.getuid() != 0:
        folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission to write there"), whole_file(folder / "a.csv"):
        pass


def test_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")
    target.chmod(0o444)
    with pytest.raises(OutputError, match="write-protected"), whole_file(target) as part:
        part.write_text("new")
    assert target.read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_write_that_the_disk_refuses_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_text("old")
    done = subprocess.run([sys.executable, "-c", DISK_FULL, str(target)], capture_output=True, text=True, check=True)
    assert "larger than allowed" in done.stdout
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_told_in_one_sentence(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(OutputError, match="the disk is full; free some space"), whole_file(tmp_path / "a.csv"):
        full.write_text("x" * 100)
    assert list(tmp_path.iterdir()) == []


def test_several_files_take_their_places_together_or_not_at_all(tmp_path: Path) -> None:
    older = tmp_path / "first.csv"
    older.write_text("older", encoding="utf-8")
    second = tmp_path / "folder" / "second.csv"
    second.parent.mkdir()
    with pytest.raises(OutputError, match="second"), whole_files() as files:
        with files.writing(older) as part:
            part.write_text("newer", encoding="utf-8")
        with files.writing(second):
            assert older.read_text(encoding="utf-8") == "older"
    assert older.read_text(encoding="utf-8") == "older"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["first.csv", "folder"]

    with whole_files() as files:
        for target in (older, second):
            with files.writing(target) as part:
                part.write_text("newer", encoding="utf-8")
    assert older.read_text(encoding="utf-8") == second.read_text(encoding="utf-8") == "newer"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["first.csv", "folder", "second.csv"]
