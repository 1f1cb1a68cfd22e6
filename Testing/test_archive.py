"""Archives: what comes out of honest ones, and that hostile ones write nothing anywhere."""

import io
import os
import shutil
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from bundles import threshold_bundle
from hostile_archives import ATTACKS, TAR_ATTACKS, Files, files_of, tarred, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

from MedAILib.errors import MedAIError, ModelError
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.read_spec import read_spec
from MedAILib.store.adding import add_model
from MedAILib.store.archive import unpack
from MedAILib.store.arrival import Wishes, find_source
from MedAILib.store.content import tree_sha256
from MedAILib.store.find import find_model
from MedAILib.store.limits import Limits
from MedAILib.store.names import Members, model_name, require_model_name, shown
from MedAILib.store.root import model_root
from MedAILib.store.unpacked import unpacked

SMALL = Limits(total_bytes=5_000_000, members=300)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return threshold_bundle(tmp_path_factory.mktemp("bundle") / "model", 50.0)


@pytest.fixture(scope="module")
def files(bundle: Path) -> Files:
    return files_of(bundle)


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"7z\xbc\xaf\x27\x1c", "does not unpack"),
        (b"", "is empty"),
        (b"hello", "is no zip or tar.gz archive"),
    ],
)
def test_what_only_has_an_archive_s_name_says_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        unpack(tmp_path / "a.zip", tmp_path / "out", Progress())
    assert not (tmp_path / "out").exists()


def test_an_honest_archive_gives_the_same_tree(bundle: Path, files: Files, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(files))
    unpack(tmp_path / "a.zip", tmp_path / "out", Progress())
    assert tree_sha256(tmp_path / "out" / "model") == tree_sha256(bundle)


def test_an_archive_of_zip64_gives_the_same_tree(bundle: Path, files: Files, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    unpack(tmp_path / "a.zip", tmp_path / "out", Progress())
    assert tree_sha256(tmp_path / "out" / "model") == tree_sha256(bundle)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_archive_is_refused_and_leaves_nothing(attack: str, files: Files, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    archive = tmp_path / "a" / "b" / "a.zip"
    archive.write_bytes(ATTACKS[attack](files))
    before = everything(tmp_path)
    with pytest.raises(ModelError) as caught:
        unpack(archive, tmp_path / "a" / "b" / "out", Progress(), SMALL)
        model_root(tmp_path / "a" / "b" / "out", archive)
    assert "\n" not in str(caught.value) and str(archive) in str(caught.value)
    left = {name: content for name, content in everything(tmp_path).items() if not name.startswith("a/b/out")}
    assert left == before


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_an_honest_tar_archive_gives_the_same_tree(kind: int, bundle: Path, files: Files, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tarred(files, kind))
    unpack(tmp_path / "a.tar.gz", tmp_path / "out", Progress())
    assert tree_sha256(tmp_path / "out" / "model") == tree_sha256(bundle)


def test_a_folder_packed_by_the_system_s_tar_gives_the_same_tree(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "knee.tgz", "w:gz") as archive:
        archive.add(bundle, ".")
    root = find_model(str(tmp_path / "knee.tgz"))
    assert tree_sha256(root) == tree_sha256(bundle) and read_spec(root).name == "knee"


@pytest.mark.parametrize("name", ["knee", "knee.bin", "knee.pt"])
def test_a_zip_with_a_model_in_it_is_one_by_any_name(name: str, bundle: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", bundle.parent, bundle.name)
    root = find_model(str(Path(packed).rename(tmp_path / name)))
    assert tree_sha256(root) == tree_sha256(bundle)


@pytest.mark.parametrize("attack", TAR_ATTACKS)
def test_a_hostile_tar_archive_is_refused_and_leaves_nothing(attack: str, files: Files, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    archive = tmp_path / "a" / "b" / "a.tar.gz"
    archive.write_bytes(TAR_ATTACKS[attack](files))
    before = everything(tmp_path)
    with pytest.raises(ModelError) as caught:
        unpack(archive, tmp_path / "a" / "b" / "out", Progress(), SMALL)
        model_root(tmp_path / "a" / "b" / "out", archive)
    assert "\n" not in str(caught.value) and str(archive) in str(caught.value)
    left = {name: content for name, content in everything(tmp_path).items() if not name.startswith("a/b/out")}
    assert left == before


@pytest.mark.parametrize("attack", ["bomb", "name of megabytes", "header of megabytes", "chain of heads"])
def test_a_hostile_tar_archive_is_not_held_in_memory(attack: str, files: Files, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(TAR_ATTACKS[attack](files))
    tracemalloc.start()
    with pytest.raises(ModelError):
        unpack(archive, tmp_path / "out", Progress(), SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_a_tar_archive_can_be_added(files: Files, tmp_path: Path) -> None:
    (tmp_path / "my model.tar.gz").write_bytes(tarred({n.removeprefix("model/"): c for n, c in files.items()}))
    there = add_model(find_source(str(tmp_path / "my model.tar.gz")), Wishes(), Progress())
    assert there.record.name == "my_model" and read_spec(there.path).task == "segmentation"


def test_a_hostile_archive_given_as_a_model_is_not_kept(files: Files, store: Path, tmp_path: Path) -> None:
    tried = [("a.zip", *each) for each in ATTACKS.items()] + [("a.tar.gz", *each) for each in TAR_ATTACKS.items()]
    for name, attack, make in tried:
        archive = tmp_path / name
        archive.write_bytes(make(files))
        with pytest.raises(ModelError):
            unpacked(archive, limits=SMALL)
        left = [path for path in store.rglob("*") if path.is_file() and path.name != "unpacked.lock"]
        assert left == [] and list(tmp_path.iterdir()) == [archive], attack
        archive.unlink()


def test_unpacking_that_is_cancelled_leaves_nothing(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(files))
    progress = Cancellable()
    progress.cancel()
    with pytest.raises(Cancelled):
        unpack(tmp_path / "a.zip", tmp_path / "out", progress)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12))
def test_an_archive_with_bytes_changed_at_random_never_writes_elsewhere(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(zipped({"model/a.txt": b"abc" * 50, "model/b/c.txt": b"def" * 50}))
    for place, value in changes:
        whole[place % len(whole)] = value
    folder = tmp_path_factory.mktemp("random")
    (folder / "a.zip").write_bytes(whole)
    try:
        unpack(folder / "a.zip", folder / "out", Progress(), SMALL)
    except MedAIError:
        assert sorted(path.name for path in folder.iterdir()) == ["a.zip"]
    else:
        assert sorted(path.name for path in folder.iterdir()) == ["a.zip", "out"]


@pytest.mark.parametrize("wrapping", ["", "one/", "one/two/three/"])
def test_folders_around_the_model_don_t_hide_it(wrapping: str, files: Files, bundle: Path, tmp_path: Path) -> None:
    inner = {name.removeprefix("model/"): content for name, content in files.items()}
    junk = {"__MACOSX/._a": b"x", f"{wrapping}.DS_Store": b"x"}
    (tmp_path / "my model (2).zip").write_bytes(zipped({wrapping + name: c for name, c in inner.items()} | junk))
    root = unpacked(tmp_path / "my model (2).zip")
    assert tree_sha256(root) == tree_sha256(bundle)
    assert read_spec(root).name == (wrapping.rstrip("/").rpartition("/")[2] or "my_model_2")


def test_an_archive_is_unpacked_once(files: Files, store: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(zipped(files))
    assert unpacked(tmp_path / "a.zip") == unpacked(tmp_path / "b.zip")
    (tmp_path / "b.zip").write_bytes(zipped(files | {"model/more": b"x"}))
    assert unpacked(tmp_path / "a.zip") != unpacked(tmp_path / "b.zip")
    assert len(list((store / ".medai" / "unpacked").iterdir())) == 2


def test_the_longest_unused_archives_are_forgotten(
    files: Files, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = []
    for number in range(4):
        (tmp_path / f"{number}.zip").write_bytes(zipped(files | {"model/number": str(number).encode() * 1000}))
        roots.append(unpacked(tmp_path / f"{number}.zip"))
    one = sum(path.stat().st_size for path in roots[0].rglob("*") if path.is_file())
    cache = store / ".medai" / "unpacked"
    for age, root in enumerate([roots[2], roots[0], roots[1]]):
        os.utime(cache / root.relative_to(cache).parts[0], (age, age))
    monkeypatch.setattr("MedAILib.store.unpacked.MOST_BYTES", int(2.5 * one))
    unpacked(tmp_path / "3.zip")
    assert [root.exists() for root in roots] == [False, True, False, True]


def test_words_from_outside_can_t_steer_a_terminal() -> None:
    assert shown("a\x1b[2J\r\nb\u202ec\tde") == "a [2J b c de"
    assert len(shown("x" * 1000, 80)) == 80


def test_names_are_made_safe() -> None:
    made = {
        "spleen_ct": "spleen_ct",
        "../../etc/passwd": "etc_passwd",
        "CON": "model_CON",
        "": "model",
        "..": "model",
        "Modèle №1": "Modele_No1",
        "a" * 200: "a" * 64,
        ".hidden": "hidden",
    }
    assert {wanted: model_name(wanted) for wanted in made} == made


@given(st.text(max_size=80))
def test_a_name_that_was_made_safe_is_accepted(text: str) -> None:
    name = model_name(text)
    require_model_name(name)
    assert Members("it", Limits()).add(name, is_folder=True) == (name,)


def test_a_comment_that_looks_like_a_list_is_no_way_in(tmp_path: Path, files: Files) -> None:
    memory = io.BytesIO(zipped(files))
    with zipfile.ZipFile(memory, "a") as archive:
        archive.comment = zipped({"../evil": b"evil"})
    (tmp_path / "a.zip").write_bytes(memory.getvalue())
    with pytest.raises(ModelError):
        unpack(tmp_path / "a.zip", tmp_path / "out", Progress())
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
