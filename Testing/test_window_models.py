"""Models that come into MedAISegment's panel: offered, asked for, fetched by a process of their own, cancelled."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import configs, network_entry, write_configs
from model_server import ModelServer, serving

from MedAILib.errors import InputError
from MedAILib.gui.checking import Checking
from MedAILib.store.catalogue import CATALOGUE, catalogue
from MedAILib.store.record import installed_models

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import ctk, qt
from standin.session import Session

OFFERED = "spleen_ct_segmentation"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = write_configs(tmp_path / "mine", *configs(network_entry("UNet", classes=3)))
    return Path(shutil.make_archive(str(tmp_path / "mine"), "zip", folder.parent, folder.name))


def wait_for(session: Session, widget: Any) -> None:
    session.until(lambda: widget._run.finished)


def test_models_of_the_catalogue_are_offered_with_licence_and_size(session) -> None:
    session.add_volume()
    widget = session.open()
    texts = [widget.ui.modelList.item(row).text() for row in range(widget.ui.modelList.count)]
    assert "built in" in texts[0]
    assert any("can be downloaded" in text for text in texts)
    assert not widget.ui.getModelButton.enabled
    widget._parameterNode.model = OFFERED
    assert catalogue()[OFFERED].licence.name in widget.ui.modelDetails.toPlainText()
    assert widget.ui.getModelButton.enabled
    assert (widget.ui.applyButton.enabled, "Get this model" in widget.ui.applyButton.toolTip) == (False, True)


def test_model_that_does_not_run_says_why_and_is_not_offered_to_get(session, tmp_path, monkeypatch) -> None:
    listed = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    row = next(row for row in listed["models"] if row["name"] == OFFERED)
    row |= {"runs": False, "why": "Needs scripts/net.py for its network."}
    monkeypatch.setattr("MedAILib.store.catalogue.CATALOGUE", tmp_path / "catalogue.json")
    (tmp_path / "catalogue.json").write_text(json.dumps(listed), encoding="utf-8")
    entry = catalogue()[OFFERED]
    widget = session.open()
    widget._parameterNode.model = entry.name
    assert entry.why in widget.ui.modelDetails.toPlainText()
    assert not widget.ui.getModelButton.enabled


def test_licence_is_shown_before_anything_is_fetched(session) -> None:
    widget = session.open()
    widget._parameterNode.model = OFFERED
    ctk.answers.append(False)
    widget.ui.getModelButton.click()
    (question,) = session.messages()
    assert "Its licence: " + catalogue()[OFFERED].licence.in_words() in question
    assert widget._run is None


def test_model_that_can_not_be_reached_says_so_and_leaves_nothing(session, store, monkeypatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    widget = session.open()
    widget._parameterNode.model = OFFERED
    widget.ui.getModelButton.click()
    wait_for(session, widget)
    session.until(lambda: len(session.messages()) == 2)
    assert "can't be reached through the proxy" in session.messages()[1]
    assert installed_models() == {}
    assert widget.ui.getModelButton.enabled


def test_archive_that_is_added_is_installed_and_chosen(session, archive, monkeypatch) -> None:
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(archive))
    widget = session.open()
    widget.ui.addModelButton.click()
    assert not widget.ui.addModelButton.enabled
    wait_for(session, widget)
    (name,) = installed_models()
    assert widget._parameterNode.model == name
    assert "installed" in widget.ui.modelDetails.toPlainText()
    assert widget._picker.current().state == "installed"
    assert widget.ui.addModelButton.enabled


@pytest.fixture
def added(session, store, archive, monkeypatch) -> Any:
    """The panel, with a model that was added and is chosen."""
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(archive))
    widget = session.open()
    widget.ui.addModelButton.click()
    wait_for(session, widget)
    return widget


def test_added_model_is_verified_and_one_that_was_changed_is_told(session, added) -> None:
    (there,) = installed_models().values()
    added.ui.verifyModelButton.click()
    assert not added.ui.verifyModelButton.enabled
    wait_for(session, added)
    assert there.record.sha256 in added.ui.logText.toPlainText()
    (there.path / "configs" / "metadata.json").write_text("{}", encoding="utf-8")
    added.ui.verifyModelButton.click()
    wait_for(session, added)
    session.until(lambda: len(session.messages()) == 1)
    assert "is not as it came" in session.messages()[0]
    assert added.ui.verifyModelButton.enabled


def test_check_that_is_over_before_it_is_followed_is_told_all_the_same(session, added, monkeypatch) -> None:
    def checked(name: str, path: Path) -> Checking:
        checking = Checking(name, path)
        session.until(lambda: checking.poll().finished)
        return checking

    monkeypatch.setattr("MedAILib.gui.logic.Checking", checked)
    (there,) = installed_models().values()
    added.ui.verifyModelButton.click()
    wait_for(session, added)
    assert there.record.sha256 in added.ui.logText.toPlainText()
    assert added.ui.verifyModelButton.enabled


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_defect_of_a_check_or_a_download_is_told(session, added, server, tmp_path, monkeypatch) -> None:
    def verify(name: str, path: Path) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("MedAILib.gui.checking.verify_model", verify)
    added.ui.verifyModelButton.click()
    session.until(lambda: len(session.messages()) == 1)
    assert "KeyError" in added.ui.logText.toPlainText() and added.ui.verifyModelButton.enabled
    talker = tmp_path / "talker"
    talker.write_text("#!/bin/sh\necho this is no JSON\n")
    talker.chmod(0o755)
    monkeypatch.setattr("MedAILib.gui.getting.worker_python", lambda: str(talker))
    added._models.get(server.give("/mine.zip", b""))
    session.until(lambda: len(session.messages()) == 2)
    assert "JSONDecodeError" in added.ui.logText.toPlainText() and added.ui.addModelButton.enabled


def test_added_model_is_removed_when_the_user_agrees_and_not_else(session, added) -> None:
    (name,) = installed_models()
    ctk.answers.append(False)
    added.ui.removeModelButton.click()
    assert list(installed_models()) == [name]
    ctk.answers.append(True)
    added.ui.removeModelButton.click()
    assert installed_models() == {}
    assert added._parameterNode.model == ""
    assert not added.ui.applyButton.enabled and not added.ui.removeModelButton.enabled
    assert all("installed" not in added.ui.modelList.item(row).text() for row in range(added.ui.modelList.count))


def test_built_in_model_is_verified_and_stays(session) -> None:
    widget = session.open()
    widget._parameterNode.model = "hippocampus"
    assert widget.ui.verifyModelButton.enabled and not widget.ui.removeModelButton.enabled
    widget.ui.verifyModelButton.click()
    wait_for(session, widget)
    assert "is as it came" in widget.ui.logText.toPlainText()
    with pytest.raises(InputError, match="ships with MedAI"):
        session.logic().removeModel("hippocampus")


def test_model_at_an_address_comes_with_progress(session, server, archive) -> None:
    made, texts = [], []
    run = session.logic().getModelAsync(
        server.give("/mine.zip", archive.read_bytes()), onDone=made.append, onProgress=lambda x: texts.append(x.text)
    )
    session.until(lambda: run.finished)
    assert run.error is None
    assert made == list(installed_models())
    assert len(texts) > 2


def test_cancelled_download_leaves_the_models_as_they_were(session, server) -> None:
    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 28))
        handler.end_headers()
        for _ in range(4000):
            handler.wfile.write(bytes(1 << 16))
            time.sleep(0.05)

    widget = session.open()
    widget._models.get(server.give("/slow.zip", act=trickle))
    session.until(lambda: widget._run.poll().done > 0)
    assert widget.ui.cancelButton.enabled
    widget.ui.cancelButton.click()
    session.until(lambda: widget._run.finished)
    assert widget.ui.statusLabel.text == "Cancelled"
    assert installed_models() == {}
    assert widget.ui.addModelButton.enabled


def test_file_that_is_no_model_is_refused_in_one_sentence(session, tmp_path, monkeypatch) -> None:
    (tmp_path / "text.zip").write_bytes(b"no archive")
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(tmp_path / "text.zip"))
    widget = session.open()
    widget.ui.addModelButton.click()
    wait_for(session, widget)
    session.until(session.messages)
    assert "text.zip" in session.messages()[0]
    assert installed_models() == {}
