"""Models that execute code of their own, in MedAISegment's panel: said, asked once for exactly this content, run."""

from pathlib import Path
from typing import Any

import pytest
from scripts_made import script_file

from MedAILib.store.content import tree_sha256
from MedAILib.store.trust_list import is_trusted

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import ctk
from standin.session import run_to_end


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return script_file(tmp_path / "mine.ts")


@pytest.fixture
def widget(session, client, script: Path) -> Any:
    session.add_volume()
    widget = session.open(client)
    widget._parameterNode.model = str(script)
    widget._parameterNode.device = "cpu"
    return widget


def test_description_says_where_it_lies_and_that_it_executes_code(widget, script) -> None:
    text = widget.ui.modelDetails.toPlainText()
    assert "executing code of its own" in text
    assert str(script) in text
    assert widget.ui.applyButton.enabled


def test_code_that_is_not_allowed_is_not_run(session, widget, script) -> None:
    ctk.answers.append(False)
    widget.ui.applyButton.click()
    (question,) = session.messages()
    assert tree_sha256(script) in question
    assert str(script.parent) in question
    assert (widget._run, widget.ui.statusLabel.text) == (None, "Not run.")
    assert not is_trusted(tree_sha256(script))


def test_code_is_allowed_once_and_until_it_changes(session, widget, script) -> None:
    run_to_end(widget)
    assert widget._run.error is None
    assert len(session.nodes("vtkMRMLSegmentationNode")) == 1
    widget.ui.runAgainButton.click()
    session.until(lambda: widget._run.finished)
    assert len([text for text in session.messages() if "SHA-256" in text]) == 1
    script_file(script, name="another")
    ctk.answers.append(False)
    widget.ui.runAgainButton.click()
    assert len([text for text in session.messages() if "SHA-256" in text]) == 2
    assert len(session.nodes("vtkMRMLSegmentationNode")) == 2


def test_console_runs_it_with_its_hash_alone(session, client, script) -> None:
    script_file(script, name="console")  # one that no test before has allowed to the worker that they share
    logic, volume = session.logic(client), session.add_volume()
    errors: list[Exception] = []
    run = logic.segmentAsync(volume, str(script), "cpu", onError=errors.append)
    session.until(lambda: run.finished)
    assert "TorchScript" in str(errors[0])
    nodes = logic.segment(volume, str(script), "cpu", trustCode=tree_sha256(script))
    assert nodes[0].IsA("vtkMRMLSegmentationNode")
