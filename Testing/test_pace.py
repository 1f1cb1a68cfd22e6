"""How long a run will take: by what the network is shown, by what it took before, and where the user reads it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import configs, network_entry, write_configs

from MedAILib.checks import MemoryNeed
from MedAILib.estimate import network_voxels, usual_seconds
from MedAILib.gui.words import estimate_text, time_text
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions, RunRequest
from MedAILib.scene.read import geometry_of
from MedAILib.volume import Geometry, Roi

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import ctk

GRID = Geometry((96, 96, 96), np.eye(4))
WINDOW = 40 * 56 * 40


@pytest.fixture(scope="module")
def spec(hippocampus: Path):
    return read_spec(hippocampus)


@pytest.mark.parametrize(
    ("options", "windows"),
    [
        (RunOptions(), 4 * 3 * 4),
        (RunOptions(overlap=0.0), 3 * 2 * 3),
        (RunOptions(mirror=True), 8 * 48),
        (RunOptions(roi=Roi((20, 20, 20), (30, 30, 30))), 1),
    ],
)
def test_network_is_shown_each_window_and_each_mirrored_copy(spec, options: RunOptions, windows: int) -> None:
    assert spec.overlap == 0.5
    mirrored = replace(spec, mirror_axes=(0, 1, 2))
    assert network_voxels(mirrored, GRID, options) == windows * WINDOW


def test_more_cores_are_expected_to_be_faster(spec) -> None:
    assert usual_seconds(spec, WINDOW, 4) == pytest.approx(usual_seconds(spec, WINDOW, 1) / 4)


def test_estimate_says_what_is_known() -> None:
    need = MemoryNeed(2_100_000_000, 14_000_000_000)
    assert estimate_text(240, need) == "Estimated: about 4 min, 2.1 GB of memory (14.0 GB are free)."
    assert estimate_text(None, need) == "Estimated: 2.1 GB of memory (14.0 GB are free)."
    assert estimate_text(None, None) == ""


def behaving(session, client, folder: Path, name: str = "slow:40"):
    """A panel whose model takes a while."""
    session.add_volume()
    widget = session.open(client)
    widget._parameterNode.model = str(write_configs(folder / name, *configs(network_entry("UNet", classes=2))))
    widget._parameterNode.device = "cpu"
    return widget


def test_second_run_is_foretold_by_the_first(session, behaving_client, tmp_path) -> None:
    widget = behaving(session, behaving_client, tmp_path, "gated")
    widget.ui.applyButton.click()
    session.until(lambda: widget._run.poll().total > 1)  # it computes
    first = widget._run.poll().done
    session.until(lambda: widget._run.poll().done > first + 20)  # long enough to be remembered
    (tmp_path / "go").touch()
    session.until(lambda: widget._run.finished)
    took = widget._run.computed_s
    assert took is not None
    widget.ui.runAgainButton.click()
    assert widget._run.expected_s == pytest.approx(took, rel=1e-6)
    assert f"about {time_text(took)}" in widget.ui.logText.toPlainText().splitlines()[-1]
    session.until(lambda: widget._run.finished)


def test_pace_of_a_larger_image_is_that_of_its_windows(session, behaving_client, tmp_path) -> None:
    from MedAILib.gui.pace import expected_seconds, keep_pace

    spec, request = read_spec(write_configs(tmp_path / "m", *configs(network_entry("UNet")))), RunRequest("a/b", "cpu")
    small, large = Geometry((32, 32, 32), np.eye(4)), Geometry((32, 32, 64), np.eye(4))
    keep_pace(request, spec, small, "cpu", "", 10.0)
    ratio = network_voxels(spec, large, RunOptions()) / network_voxels(spec, small, RunOptions())
    assert ratio > 1
    assert expected_seconds(request, spec, large, "cpu", "") == pytest.approx(10.0 * ratio)
    assert expected_seconds(request, spec, small, "cuda:0", "") is None
    assert expected_seconds(request, spec, small, "cpu", "gpu-box") is None
    assert expected_seconds(RunRequest("other", "cpu"), spec, small, "cpu", "") == pytest.approx(
        usual_seconds(spec, network_voxels(spec, small, RunOptions()), os.cpu_count() or 1)
    )
    session.app.settings().setValue("MedAI/Pace/here/cpu/a%2Fb", "soon")
    assert expected_seconds(request, spec, small, "cpu", "") != pytest.approx(10.0)


def test_long_run_is_asked_about_though_nothing_else_speaks_against_it(session, behaving_client, tmp_path) -> None:
    from MedAILib.gui.pace import keep_pace

    widget = behaving(session, behaving_client, tmp_path)
    name = widget._parameterNode.model
    (volume,) = session.nodes("vtkMRMLScalarVolumeNode")
    where = widget.logic.destination()
    keep_pace(RunRequest(name, "cpu"), read_spec(Path(name)), geometry_of(volume), "cpu", where, 7200.0)
    ctk.answers.append(False)
    widget.ui.applyButton.click()
    (question,) = session.messages()
    assert question.startswith("Estimated: about 2 h")
    assert widget._run is None
