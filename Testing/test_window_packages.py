"""Missing Python packages: nothing is asked before Apply, what is missing is said, and installed on consent."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
import slicer.util
from bundles import configs, network_entry, write_configs
from packaging.requirements import Requirement

from MedAILib.gui import packages
from MedAILib.gui.packages import PackagesMissing, Tools, ensure_packages, missing_packages, slow_torch

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import ctk, packaging


@dataclass
class Python:
    """An environment of packages that can be installed into, in place of Slicer's."""

    there: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    graphics_cards: int = 0
    answer: bool = True
    asked: list[str] = field(default_factory=list)
    installs: bool = True

    def install_torch(self, versions: str) -> None:
        if self.installs:
            self.there["torch"] = "2.13.0"
            self.broken.discard("torch")

    def install(self, requirements: Sequence[str]) -> None:
        self.there |= {requirement.partition(">=")[0]: "99.0" for requirement in requirements}

    def confirm(self, text: str) -> bool:
        self.asked.append(text)
        return self.answer

    def tools(self) -> Tools:
        return Tools(
            self.there.get,
            lambda name: name not in self.broken,
            packages.version_fits,
            lambda: self.graphics_cards,
            self.confirm,
            self.install_torch,
            self.install,
        )


COMPLETE = {"torch": "2.13.0+cu130", "monai": "1.6.1", "safetensors": "0.8.0"}


def test_nothing_is_asked_where_nothing_is_missing() -> None:
    python = Python(dict(COMPLETE))
    assert ensure_packages(python.tools()) is False
    assert python.asked == []


def test_what_is_missing_is_asked_for_with_sizes_and_installed() -> None:
    python = Python({"safetensors": "0.8.0"})
    assert ensure_packages(python.tools()) is True
    (question,) = python.asked
    assert "torch>=2.10: is not installed, about 200 MB" in question
    assert "monai>=1.6.1" in question
    assert "safetensors" not in question
    assert missing_packages(python.tools()) == []


def test_graphics_card_makes_the_download_larger() -> None:
    assert "2.8 GB" in packages.question(missing_packages(Python(graphics_cards=1).tools()))


def test_who_says_no_is_told_how_to_go_on_without_a_connection() -> None:
    python = Python(answer=False)
    with pytest.raises(PackagesMissing, match="pip download torch monai safetensors"):
        ensure_packages(python.tools())
    assert python.there == {}


def test_half_installed_package_is_installed_again() -> None:
    python = Python(dict(COMPLETE), broken={"torch"})
    assert [item.why for item in missing_packages(python.tools())] == ["is only half installed"]
    assert ensure_packages(python.tools()) is True


@pytest.mark.parametrize(("version", "fits"), [("2.9.1", False), ("2.10.0+cpu", True), ("2.13.0a0+git", True)])
def test_versions_are_compared_as_versions(version: str, fits: bool) -> None:
    assert (missing_packages(Python(COMPLETE | {"torch": version}).tools()) == []) is fits


def test_installation_that_did_not_help_is_said() -> None:
    with pytest.raises(PackagesMissing, match="After the installation torch is not installed"):
        ensure_packages(Python(installs=False).tools())


def test_torch_without_cuda_beside_a_graphics_card_is_said() -> None:
    with_card = Python(COMPLETE | {"torch": "2.13.0+cpu"}, graphics_cards=1)
    assert "can only use the CPU" in slow_torch(with_card.tools())
    assert slow_torch(Python(COMPLETE | {"torch": "2.13.0+cpu"}).tools()) == ""
    assert slow_torch(Python(dict(COMPLETE), graphics_cards=1).tools()) == ""


def test_packages_are_found_without_being_imported() -> None:
    code = (
        "import sys\n"
        "from standin import i18n\n"
        "sys.modules['slicer.i18n'] = i18n\n"
        "from MedAILib.gui.packages import is_complete, installed_version\n"
        "assert is_complete('torch') and installed_version('monai') and not is_complete('no_such_package')\n"
        "assert installed_version('no-such-package') is None\n"
        "assert not {'torch', 'monai'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root / "Testing", env={"PYTHONPATH": f"{root}:{root / 'Testing'}"}, check=False)
    assert done.returncode == 0


def panel(session, tmp_path: Path, patch: pytest.MonkeyPatch, there: dict[str, str]):
    """A panel in a Slicer that has these packages, and one more for each that gets installed."""
    session.add_volume()
    widget = session.open()
    widget._parameterNode.model = str(write_configs(tmp_path / "model", *configs(network_entry("UNet"))))
    patch.setattr(packages, "installed_version", there.get)
    patch.setattr(packages, "is_complete", lambda name: True)
    return widget


def test_panel_asks_on_apply_and_not_before(session, tmp_path, monkeypatch) -> None:
    widget = panel(session, tmp_path, monkeypatch, {})
    assert session.messages() == []
    ctk.answers.append(False)
    widget.ui.applyButton.click()
    session.until(lambda: len(session.messages()) == 2)
    assert "Install it now?" in session.messages()[0]
    assert "Without a connection" in session.messages()[1]
    assert widget._run is None


def test_panel_installs_by_slicers_own_means(session, tmp_path, monkeypatch) -> None:
    there = {"safetensors": "0.8.0"}
    widget = panel(session, tmp_path, monkeypatch, there)
    logic = SimpleNamespace(installTorch=lambda **kwargs: there.update(torch="2.13.0") or object())
    extension = SimpleNamespace(PyTorchUtilsLogic=lambda: logic)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    monkeypatch.setattr(packaging, "pip_ensure", lambda requirements, **kwargs: there.update(monai="1.6.1"))
    widget.ui.applyButton.click()
    assert there == {"safetensors": "0.8.0", "torch": "2.13.0", "monai": "1.6.1"}
    assert "Packages were installed" in widget.ui.logText.toPlainText()
    assert widget._run is not None


def test_panel_says_which_extension_is_missing(session, tmp_path, monkeypatch) -> None:
    widget = panel(session, tmp_path, monkeypatch, {})
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    widget.ui.applyButton.click()
    session.until(lambda: len(session.messages()) == 2)
    assert "extension 'PyTorch'" in session.messages()[1]


def test_torch_that_slicer_itself_can_not_import_will_do_for_the_worker(session, tmp_path, monkeypatch) -> None:
    there = {"monai": "1.6.1", "safetensors": "0.8.0"}

    def install(**options: object) -> None:
        there["torch"] = "2.13.0"
        raise ImportError("a library of Slicer's is in the way")

    widget = panel(session, tmp_path, monkeypatch, there)
    extension = SimpleNamespace(PyTorchUtilsLogic=lambda: SimpleNamespace(installTorch=install))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    widget.ui.applyButton.click()
    assert widget._run is not None


def test_failed_installation_says_how_to_go_on(session, tmp_path, monkeypatch) -> None:
    def fail(requirements: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    widget = panel(session, tmp_path, monkeypatch, {"torch": "2.13.0", "safetensors": "0.8.0"})
    monkeypatch.setattr(packaging, "pip_ensure", fail)
    widget.ui.applyButton.click()
    session.until(lambda: len(session.messages()) == 2)
    assert "monai>=1.6.1 could not be installed" in session.messages()[1]
    assert "Without a connection" in session.messages()[1]


def test_half_installed_packages_are_taken_apart_before_they_are_installed(session, tmp_path, monkeypatch) -> None:
    there = {"torch": "2.13.0", "monai": "1.6.1", "safetensors": "0.8.0"}
    broken, done = {"torch", "monai"}, []

    def install_torch(**options: object) -> object:
        if "torch" not in there:  # else pip takes what is there for it
            there["torch"] = "2.13.0"
            broken.discard("torch")
        return object()

    def pip_install(arguments: list[str]) -> None:
        done.append(arguments)
        broken.discard("monai")

    widget = panel(session, tmp_path, monkeypatch, there)
    logic = SimpleNamespace(installTorch=install_torch, uninstallTorch=lambda: there.pop("torch"))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    monkeypatch.setattr(packages, "is_complete", lambda name: name not in broken)
    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    widget.ui.applyButton.click()
    assert done == [["--force-reinstall", "--no-deps", "monai>=1.6.1"]]
    assert widget._run is not None and not broken


def test_requirements_come_to_slicer_as_every_version_of_it_takes_them(session, tmp_path, monkeypatch) -> None:
    there = {"torch": "2.13.0", "safetensors": "0.8.0"}

    def pip_ensure(requirements: list[Requirement], **options: object) -> None:
        there.update({requirement.name: "1.6.1" for requirement in requirements if "1.6.1" in requirement.specifier})

    widget = panel(session, tmp_path, monkeypatch, there)
    monkeypatch.setattr(packaging, "pip_ensure", pip_ensure)
    widget.ui.applyButton.click()
    assert there["monai"] == "1.6.1"


def test_window_for_classifying_offers_what_explains(classify_session, volume_classifier, monkeypatch) -> None:
    classify_session.add_volume()
    widget = classify_session.open()
    widget._parameterNode.model = volume_classifier
    monkeypatch.setattr(packages, "installed_version", COMPLETE.get)
    monkeypatch.setattr(packages, "is_complete", lambda name: True)
    ctk.answers.append(False)
    widget.ui.applyButton.click()
    classify_session.until(lambda: len(classify_session.messages()) == 2)
    assert "captum>=0.8" in classify_session.messages()[0] and "scikit-learn" in classify_session.messages()[0]
    assert "pip download torch monai safetensors captum scikit-learn" in classify_session.messages()[1]
