"""The model store: what is added is found, run, compared and removed; what goes wrong leaves it as it was."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import nibabel
import numpy as np
import pytest
from bundles import threshold_bundle
from hostile_archives import ATTACKS, Files, files_of, zipped
from model_server import ModelServer, serving
from test_download import ADDRESSES, FAILURES

from MedAILib.cli import main
from MedAILib.errors import InputError, MedAIError, ModelError, OutputError
from MedAILib.progress import Progress
from MedAILib.store.adding import add_model, remove_model, verify_model
from MedAILib.store.arrival import Source, Wishes, find_source
from MedAILib.store.catalogue import CATALOGUE, catalogue
from MedAILib.store.content import tree_sha256
from MedAILib.store.find import builtin_models, find_model
from MedAILib.store.licence import licence_from
from MedAILib.store.limits import Limits
from MedAILib.store.lock import locked
from MedAILib.store.record import installed_models
from MedAILib.store.remote import Remote

LIMITS = Limits(download_bytes=2_000_000, total_bytes=5_000_000, members=300)
NONCOMMERCIAL = "This work may be used non-commercially only, that is for research."


@pytest.fixture(scope="module")
def server() -> ModelServer:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedAILib.store.download.PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return threshold_bundle(tmp_path_factory.mktemp("bundle") / "model", 50.0, spacing_mm=None)


@pytest.fixture(scope="module")
def files(bundle: Path) -> Files:
    return files_of(bundle)


@pytest.fixture
def archive(files: Files, tmp_path: Path) -> Path:
    path = tmp_path / "model_v1.2.zip"
    path.write_bytes(zipped(files))
    return path


class Told(Progress):
    """Remembers what the user was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Watch(Progress):
    """Looks at each step how much lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.largest = 0

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def step(self, done: int, total: int, text: str = "") -> None:
        self.largest = max(self.largest, self.size())


def add(words: object, **wishes: Any) -> Told:
    told = Told()
    add_model(find_source(str(words), wishes.get("sha256")), Wishes(**wishes), told, LIMITS)
    return told


def medai(*words: object) -> int:
    return main([str(word) for word in words])


def models_in(store: Path) -> dict[str, bytes]:
    """Every file in the store that is a model's or a record's, downloads and the like apart."""
    return {
        name: path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and not (name := path.relative_to(store).as_posix()).startswith(".medai/")
    }


def test_a_folder_is_copied_and_found(bundle: Path, store: Path) -> None:
    add(bundle)
    assert find_model("model") == store / "model" / "model"
    assert tree_sha256(find_model("model")) == tree_sha256(bundle)
    record = installed_models()["model"].record
    assert (record.source, record.archive) == (str(bundle), "")


def test_an_archive_is_added_by_the_name_of_its_folder(archive: Path, bundle: Path) -> None:
    add(archive)
    assert tree_sha256(find_model("model")) == tree_sha256(bundle)
    assert installed_models()["model"].record.archive == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"


def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced(
    archive: Path, files: Files, store: Path, tmp_path: Path
) -> None:
    add(archive)
    before = models_in(store)
    (tmp_path / "other.zip").write_bytes(zipped({name.lower(): c for name, c in files.items()} | {"model/more": b"x"}))
    with pytest.raises(InputError, match="--replace"):
        add(tmp_path / "other.zip")
    assert models_in(store) == before
    with pytest.raises(InputError, match="can't be replaced"):
        add(tmp_path / "other.zip", name="MODEL", replace=True)
    add(tmp_path / "other.zip", replace=True)
    assert (find_model("model") / "more").read_bytes() == b"x"
    add(tmp_path / "other.zip", name="second")
    assert set(installed_models()) == {"model", "second"}


@pytest.mark.parametrize("name", ["hippocampus", "Hippocampus", "", "a/b", "..", ".medai", "nul", "a b", "x" * 65])
def test_names_that_can_t_be_are_refused(archive: Path, store: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        add(archive, name=name)
    assert models_in(store) == {}


def test_what_was_added_is_removed_and_nothing_else(archive: Path, store: Path) -> None:
    add(archive)
    add(archive, name="second")
    assert remove_model("model") > 1000
    assert set(installed_models()) == {"second"} and not (store / "model").exists()
    for name in ("hippocampus", "model", "", "..", ".medai", "second/second"):
        with pytest.raises(InputError):
            remove_model(name)
    assert set(installed_models()) == {"second"} and builtin_models()["hippocampus"].is_dir()


def test_a_changed_model_is_noticed(archive: Path) -> None:
    add(archive)
    path = find_model("model")
    assert verify_model("model", path).recorded
    (path / "configs" / "more.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ModelError, match="not as it came"):
        verify_model("model", path)


@pytest.mark.parametrize("name", ["", " ", "nothing", "a\0b", "x" * 5000, "~nobody-of-that-name/x"])
def test_what_is_no_model_s_name_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        find_model(name)


def test_the_nearest_name_is_offered_of_added_and_available_models(archive: Path) -> None:
    add(archive, name="my_liver")
    with pytest.raises(InputError, match="did you mean 'my_liver'"):
        find_model("my-liver")
    with pytest.raises(InputError, match="did you mean 'spleen_ct_segmentation'"):
        find_model("spleen_ct_segmentatoin")
    with pytest.raises(InputError, match="models add spleen_ct_segmentation"):
        find_model("spleen_ct_segmentation")


def test_an_archive_can_be_named_as_a_model(archive: Path, bundle: Path) -> None:
    assert tree_sha256(find_model(str(archive))) == tree_sha256(bundle)


def test_a_licence_that_forbids_commercial_use_is_told(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(files | {"model/LICENSE": NONCOMMERCIAL.encode()}))
    assert any("FORBIDS COMMERCIAL USE" in text for text in add(tmp_path / "a.zip").warnings)
    assert installed_models()["model"].record.commercial is False


def test_what_the_author_warns_of_is_told(files: Files, tmp_path: Path) -> None:
    metadata = json.loads(files["model/configs/metadata.json"])
    metadata |= {"intended_use": "not for diagnosis", "medai": {"warnings": ["adults only"]}}
    (tmp_path / "a.zip").write_bytes(zipped(files | {"model/configs/metadata.json": json.dumps(metadata).encode()}))
    told = "\n".join(add(tmp_path / "a.zip").warnings)
    assert "not for diagnosis" in told and "adults only" in told


def test_other_archives_are_named_as_such(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz"):
        pass
    with pytest.raises(InputError, match="none of the archives that MedAI unpacks"):
        add(tmp_path / "a.tar.xz")


def test_licences_are_told_apart() -> None:
    gnu = "GNU GENERAL PUBLIC LICENSE ... This alternative is allowed only occasionally and noncommercially, and"
    told = {
        text: licence_from(text).commercial
        for text in (gnu, "CC BY-NC-SA 4.0", "Creative Commons Attribution-NonCommercial 4.0", NONCOMMERCIAL, "MIT", "")
    }
    assert list(told.values()) == [True, False, False, False, True, None]
    assert licence_from("", "CC-BY-SA-4.0").name == "CC-BY-SA-4.0"
    assert licence_from("Apache License\n   Version 2.0, January 2004").name == "Apache-2.0"


def test_a_model_that_does_not_run_is_added_with_the_reason(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(files["model/configs/inference.json"])
    config["inferer"] = {"_target_": "my.own.Inferer"}
    changed = files | {"model/configs/inference.json": json.dumps(config).encode()}
    (tmp_path / "a.zip").write_bytes(zipped(changed))
    add(tmp_path / "a.zip")
    assert medai("models", "info", "model", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["runs"] is False and "my.own.Inferer" in info["obstacle"]
    assert medai("models", "info", "model") == 0
    assert "no: " in capsys.readouterr().out
    assert medai("models", "verify", "model") == 0
    assert "does not run: " in capsys.readouterr().out


def test_a_folder_with_a_link_is_not_copied(bundle: Path, store: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "linked")
    (tmp_path / "linked" / "secret").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="link"):
        add(tmp_path / "linked")
    assert models_in(store) == {}


def test_a_folder_over_the_cap_is_not_copied(bundle: Path, store: Path) -> None:
    with pytest.raises(ModelError, match="over the"):
        add_model(find_source(str(bundle)), Wishes(), Progress(), Limits(total_bytes=1000))
    with pytest.raises(ModelError, match="more than 2 files"):
        add_model(find_source(str(bundle)), Wishes(), Progress(), Limits(members=2))
    assert models_in(store) == {}


def test_cleaning_removes_all_but_models(
    archive: Path, store: Path, server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    add(archive)
    models, root = models_in(store), find_model(str(archive))
    work = store / ".medai"
    (work / "downloads").mkdir()
    (work / "downloads" / "half.part").write_bytes(b"x")
    assert medai("models", "clean", "--json") == 0
    assert json.loads(capsys.readouterr().out)["freed"] > 1000
    assert not root.exists() and models_in(store) == models
    assert {path.name for path in work.rglob("*") if path.is_file()} == {"lock", "unpacked.lock"}
    assert find_model(str(archive)) == root
    shutil.rmtree(store)
    assert medai("models", "clean") == 0


def test_the_store_is_not_added_to_itself(archive: Path, store: Path) -> None:
    add(archive)
    with pytest.raises(InputError, match="store itself"):
        add(store.parent)


def test_two_that_change_the_store_at_once_don_t_meet(archive: Path, store: Path) -> None:
    with locked(store / ".medai" / "lock", "busy"), pytest.raises(OutputError, match="Another MedAI"):
        add(archive)
    add(archive)


def test_of_two_that_add_at_once_one_is_told_to_wait(archive: Path, server: ModelServer, files: Files) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        started.set()
        go_on.wait(60)
        body = zipped(files)
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    words = [sys.executable, "-m", "MedAILib", "models", "add", server.give("/slow.zip", act=slow), "--name", "first"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert started.wait(60)
        with pytest.raises(OutputError, match="Another MedAI"):
            add(archive)
        go_on.set()
        process.communicate()
    assert process.returncode == 0
    add(archive)
    assert set(installed_models()) == {"first", "model"}


def test_an_interrupted_command_ends_with_130_and_goes_on_later(
    server: ModelServer, files: Files, store: Path, tmp_path: Path
) -> None:
    body = zipped(files | {"model/more": os.urandom(400_000)})
    started = threading.Event()

    def stalls(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"one"')
        request.end_headers()
        request.wfile.write(body[:300_000])
        started.set()
        request.connection.recv(1)  # until the client leaves

    address = server.give("/stalls.zip", act=stalls)
    words = [sys.executable, "-m", "MedAILib", "models", "add", address]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert started.wait(60) and process.stderr is not None
        assert "Downloading" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130 and "Traceback" not in rest
    assert models_in(store) == {}
    server.give("/stalls.zip", body)
    add(address)
    assert server.requests[-1].get("Range") and set(installed_models()) == {"model"}


def test_a_taken_name_is_refused_before_anything_is_copied(bundle: Path) -> None:
    class Refuses(Progress):
        def step(self, done: int, total: int, text: str = "") -> None:
            raise AssertionError(text)

    add(bundle)
    with pytest.raises(InputError, match="--replace"):
        add_model(find_source(str(bundle)), Wishes(), Refuses())


def test_a_process_that_was_killed_leaves_the_store_as_it_was(
    archive: Path, bundle: Path, store: Path, server: ModelServer, files: Files
) -> None:
    add(archive)
    before = models_in(store)
    body = zipped(files | {"model/more": os.urandom(1_200_000)})
    address = server.give("/a.zip", body)
    code = f"""
        import os, signal, sys
        from MedAILib.progress import Progress
        from MedAILib.store.adding import add_model
        from MedAILib.store.arrival import Wishes, find_source
        class Dies(Progress):
            left = int(sys.argv[1])
            def step(self, done, total, text=""):
                Dies.left -= 1
                if Dies.left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        add_model(find_source({address!r}), Wishes(replace=True), Dies())
    """
    for step in (0, 5, 9, 3):  # the last of them while unpacking
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(step)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert models_in(store) == before
    assert server.requests[-1].get("Range")
    add(address, replace=True)
    assert (find_model("model") / "more").stat().st_size == 1_200_000
    assert sorted(path.name for path in (store / ".medai").iterdir()) == ["downloads", "lock"]
    assert list((store / ".medai" / "downloads").iterdir()) == []


def test_a_model_that_was_about_to_be_replaced_comes_back(archive: Path, store: Path, bundle: Path) -> None:
    add(archive)
    (store / "model").rename(store / ".medai" / "before-model")
    add(archive, name="second")
    assert tree_sha256(find_model("model")) == tree_sha256(bundle)


def test_a_full_disk_leaves_the_store_as_it_was(archive: Path, files: Files, store: Path, tmp_path: Path) -> None:
    add(archive)
    before = models_in(store)
    (tmp_path / "large.zip").write_bytes(zipped(files | {"model/large": os.urandom(400_000)}))
    code = f"""
        import resource, sys
        from MedAILib.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        sys.exit(main(["models", "add", {str(tmp_path / "large.zip")!r}, "--replace"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "larger than allowed" in done.stderr
    assert models_in(store) == before


def test_a_model_is_served_added_used_and_removed(
    server: ModelServer, files: Files, tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = zipped(files | {"model/LICENSE": b"MIT License"})
    address, digest = server.give("/my%20model.zip", body), hashlib.sha256(body).hexdigest()
    assert medai("models", "add", address, "--sha256", "0" * 64, "--quiet") == 2
    assert medai("models", "add", address, "--sha256", digest, "--name", "bright", "--json", "--quiet") == 0
    added = json.loads(capsys.readouterr().out)
    assert added["pinned"] and added["licence"] == "MIT" and added["source"] == address
    assert medai("models", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["bright"]["state"] == "installed" and rows["hippocampus"]["state"] == "built in"
    assert rows["spleen_ct_segmentation"]["state"] == "available"
    assert medai("models", "verify", "bright") == 0
    assert "bright: whole" in capsys.readouterr().out
    data = np.zeros((16, 18, 20), np.int16)
    data[3:6, 4:8, 5:9] = 100
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "scan.nii.gz")
    out = tmp_path / "labels.nii.gz"
    assert medai("segment", tmp_path / "scan.nii.gz", "-m", "bright", "-o", out, "--quiet") == 0
    assert np.array_equal(np.asarray(nibabel.load(out).dataobj), data > 50)
    (store / "bright" / "bright" / "LICENSE").write_text("another", encoding="utf-8")
    assert medai("models", "verify", "bright") == 2
    assert "not as it came" in capsys.readouterr().err
    assert medai("models", "remove", "bright") == 0
    assert models_in(store) == {}
    assert medai("models", "remove", "hippocampus") == 2


def test_an_available_model_is_added_by_name(
    server: ModelServer, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    body = zipped({name.replace("model/", "other/", 1): content for name, content in files.items()})
    rows = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    row = next(row for row in rows["models"] if row["name"] == "vista3d")
    row["address"], row["sha1"] = server.give("/v.zip", body), hashlib.sha1(body, usedforsecurity=False).hexdigest()
    (tmp_path / "catalogue.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr("MedAILib.store.catalogue.CATALOGUE", tmp_path / "catalogue.json")
    assert medai("models", "add", "vista3d") == 0
    said = capsys.readouterr().err.splitlines()
    assert "FORBIDS COMMERCIAL USE" in said[0] and any("Downloading" in line for line in said[1:])
    assert installed_models()["vista3d"].record.pinned
    row["sha1"] = "0" * 40
    (tmp_path / "again.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr("MedAILib.store.catalogue.CATALOGUE", tmp_path / "again.json")
    assert medai("models", "add", "vista3d", "--replace") == 2
    assert verify_model("vista3d", find_model("vista3d")).recorded


def test_the_catalogue_is_as_it_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    text, maybe = {"type": "string", "minLength": 1}, {"type": ["string", "null"], "minLength": 1}
    fields = {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "version": text,
        "address": {"type": "string", "pattern": "^https://"},
        "sha256": {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
        "sha1": {"type": ["string", "null"], "pattern": "^[0-9a-f]{40}$"},
        "size": {"type": ["integer", "null"], "minimum": 1},
        "task": {"enum": ["segmentation", "classification", "detection", None]},
        "channels": {"type": "array", "items": text},
        "labels": {"type": "array", "items": text},
        "commercial": {"type": ["boolean", "null"]},
        "runs": {"type": ["boolean", "null"]},
        **dict.fromkeys(("title", "modality", "description", "licence", "intended_use", "why"), maybe),
    }
    row = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    content = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    jsonschema.validate(content["models"], {"type": "array", "items": row, "minItems": 20})
    entries = catalogue()
    assert len(entries) == len(content["models"]) and not set(entries) & set(builtin_models())
    assert all(entry.remote.checksum for entry in entries.values())
    assert all((entry.runs is False) == (entry.why is not None) for entry in entries.values())
    assert entries["vista3d"].licence.commercial is False
    assert medai("models", "info", "vista2d") == 0
    assert "unknown" in capsys.readouterr().out


def test_the_catalogue_agrees_with_the_zoo_s_list(shared_data: Path) -> None:
    listed = json.loads((shared_data / "monai_bundles" / "model_info.json").read_text(encoding="utf-8"))
    for name, entry in catalogue().items():
        row = listed[f"{name}_v{entry.version}"]
        assert (entry.remote.address, entry.remote.sha1) == (row["source"], row["checksum"])


def test_no_attack_writes_outside_the_store_or_over_the_cap(
    server: ModelServer, files: Files, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figure 4 of the store: every failed download and every hostile archive, one after another."""
    (tmp_path / "good.zip").write_bytes(zipped(files))
    add(tmp_path / "good.zip")
    outside, models = everything(store.parent, store), models_in(store)
    sources = {f"download: {name}": server_source(server, name) for name in FAILURES}
    sources |= {f"address: {words}": Source(words, Remote(words, "0" * 64)) for words in ADDRESSES}
    watch, refused, wrong = Watch(store / ".medai"), 0, []
    attacks = [(name, lambda s=source: s) for name, source in sources.items()]
    attacks += [(f"archive: {name}", lambda n=name: served(server, ATTACKS[n](files))) for name in ATTACKS]
    for name, source in attacks:
        try:
            add_model(source(), Wishes(replace=True), watch, LIMITS)
        except MedAIError:
            refused += 1
        if everything(store.parent, store) != outside or models_in(store) != models:
            wrong.append(name)
    most = LIMITS.download_bytes + LIMITS.total_bytes
    with capsys.disabled():
        print(
            f"\nattacks {len(attacks)}, refused {refused}, wrote outside the store or changed a model {len(wrong)}, "
            f"most on the disk at any step {watch.largest} of {most} bytes, afterwards {watch.size()}"
        )
    assert watch.largest <= most
    assert wrong == [] and refused == len(attacks) >= 30


def server_source(server: ModelServer, name: str) -> Source:
    path = f"/failure/{len(server.answers)}"
    how = dict(FAILURES[name][0])
    how["breaks"] = list(how.get("breaks", []))
    if how.get("headers", {}).get("Location") == "/a.zip":
        how["headers"] = {"Location": path}
    return Source(name, Remote(server.give(path, **how), "0" * 64, size=900_002))


def served(server: ModelServer, body: bytes) -> Source:
    """The archive over the net, promised just so: what refuses it is not its hash."""
    address = server.give(f"/archive/{len(server.answers)}", body)
    return Source(address, Remote(address, hashlib.sha256(body).hexdigest()))


def everything(folder: Path, without: Path) -> dict[str, float]:
    return {
        str(path): path.lstat().st_mtime
        for path in folder.rglob("*")
        if path != without and not path.is_relative_to(without)
    }
