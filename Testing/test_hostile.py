"""Hostile models execute nothing and are refused with their sentence; honest ones run and ask for nothing."""

import contextlib
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import network_entry, random_bundle
from hostile import EVERY, READ, TOUCH, shadowing
from hostile_pickles import PAYLOADS, SILENT
from judging import CONTROL, Judge
from legitimate import LEGITIMATE, bundle
from scripts_made import Writing, script_file
from watch import Watch

from MedAILib.errors import MedAIError
from MedAILib.request import RunRequest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and process groups of POSIX")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDAI_MODELS", str(work / "store" / "models"))
        patch.setenv("MEDAI_CONFIG", str(work / "store" / "config"))
        judge = Judge(tmp_path_factory.mktemp("models"), work)
        yield judge
        judge.close()


@pytest.fixture(autouse=True)
def store(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker was started with the judge's store: the tests of this file keep to it."""
    monkeypatch.setenv("MEDAI_MODELS", str(judge.scan.parent / "store" / "models"))
    monkeypatch.setenv("MEDAI_CONFIG", str(judge.scan.parent / "store" / "config"))


class NotAsked(io.StringIO):
    def read(self, *arguments: object) -> str:
        raise AssertionError("something was asked on standard input")

    readline = read


@pytest.mark.parametrize("name", EVERY)
def test_a_hostile_model_executes_nothing_and_is_refused(name: str, judge: Judge) -> None:
    verdict = judge.judge(EVERY[name], judge.folder / str(list(EVERY).index(name)))
    assert verdict.executed == []
    assert verdict.wrong == []
    ways = {"library", "segment", "worker"}
    assert ways & verdict.told.keys() == (set() if name in READ else ways), verdict.told


@pytest.mark.parametrize("name", LEGITIMATE)
def test_an_honest_model_runs_and_asks_for_nothing(name: str, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", NotAsked())
    verdict = judge.judge(lambda folder, mark: LEGITIMATE[name](folder), judge.folder / f"honest {name}")
    assert (verdict.executed, verdict.wrong, verdict.told) == ([], [], {})


def test_there_are_enough_of_both() -> None:
    assert len(EVERY) - len(READ) >= 60 and len(LEGITIMATE) >= 20 and set(READ) < EVERY.keys()


# What follows shows that the tests above would notice.


@pytest.mark.parametrize("name", PAYLOADS)
def test_each_payload_works_where_a_pickle_is_read_in_full(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = pickle.dumps(PAYLOADS[name](mark))
    try:
        pickle.loads(content)
    except (TypeError, pickle.UnpicklingError):
        assert mark.exists()
    finally:
        sys.path[:] = [path for path in sys.path if path != str(tmp_path)]
        sys.modules.pop("medai_evil", None)
    assert mark.exists()


def test_a_script_works_where_it_is_loaded(tmp_path: Path) -> None:
    path = script_file(tmp_path / "m.ts", module=Writing(tmp_path / "mark"))
    (tmp_path / "mark").unlink(missing_ok=True)
    torch.jit.load(str(path))
    assert (tmp_path / "mark").exists()


def heard(call: Callable[[], object], folder: Path) -> str:
    found: list[str] = []
    watch = Watch(found.append, folder)
    with watch.watching(), contextlib.suppress(OSError, ValueError, SystemError):
        call()
    return " ".join(found)


def flat(call: tuple[Callable[..., object], tuple[object, ...]]) -> tuple[object, ...]:
    return call[0], *call[1]


def test_the_watch_hears_what_is_forbidden(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("x = 1", encoding="utf-8")
    code = compile("x = 1", str(tmp_path / "evil.py"), "exec")
    mark = tmp_path / "mark"
    connect = partial(*flat(SILENT["socket"](mark).call))
    assert "os.system" in heard(lambda: os.system("true"), tmp_path)
    assert "subprocess.Popen" in heard(lambda: subprocess.run(["true"], check=True), tmp_path)
    assert "pickle.find_class" in heard(lambda: pickle.loads(pickle.dumps(np.float64(1))), tmp_path)
    assert "open" in heard(mark.touch, tmp_path)
    assert "os.remove" in heard(mark.unlink, tmp_path)
    assert "exec" in heard(lambda: exec(code), tmp_path)
    assert "socket.connect" in heard(connect, tmp_path)
    assert heard((tmp_path / "evil.py").read_bytes, tmp_path) == ""


def test_the_watched_worker_hears_too(judge: Judge, tmp_path: Path) -> None:
    before = judge.log.stat().st_size
    (tmp_path / CONTROL).touch()
    with pytest.raises(MedAIError):
        judge.client.submit(RunRequest(str(tmp_path / CONTROL), "cpu"), judge.volume).result(60)
    assert "os.system" in judge.log.read_text(encoding="utf-8")[before:]


def test_modules_in_the_folder_one_stands_in_are_not_imported(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = shadowing(tmp_path / "model", mark)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "MedAILib", "models", "verify", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_a_refusal_is_one_line_whatever_libraries_warn_of(judge: Judge, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "model", network_def=network_entry() | {"channels": [-4, 8], "strides": [2, 2]})
    words = ["segment", str(judge.scan), "-m", str(folder), "-o", str(tmp_path / "labels.nii.gz"), "--quiet"]
    command = [sys.executable, "-m", "MedAILib", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("medai: The network UNet can't be built") and done.stderr.count("\n") == 1


def test_expressions_would_leave_their_mark(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    eval(TOUCH.replace("MARK", str(mark)))
    assert mark.exists()


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a\n\x1b[2J", "..", "x" * 300])
def test_a_label_s_name_leads_nowhere(name: str, judge: Judge, tmp_path: Path) -> None:
    import json

    folder = random_bundle(tmp_path / "deep" / "er" / "model", network_entry())
    path = folder / "configs" / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["network_data_format"]["outputs"]["pred"]["channel_def"]["1"] = name
    path.write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "deep" / "er" / "out"
    from MedAILib.cli import main

    words = ("segment", judge.scan, "-m", folder, "-o", out, "--surfaces", out / "s", "--quiet")
    assert main([str(word) for word in words]) in (0, 2)
    inside = {path for path in tmp_path.rglob("*") if folder not in path.parents and out not in path.parents}
    assert {path.name for path in inside} == {"deep", "er", "model", "out"} - ({"out"} if not out.exists() else set())
    assert not Path("/evil").exists()
