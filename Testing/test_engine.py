"""Engines beside PyTorch: tried once on a window of the run, taken where they are faster and say the same, and told."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import network_entry, random_bundle
from torch import Tensor, nn

from MedAILib.cli import main
from MedAILib.errors import InputError, ModelError
from MedAILib.inference import engine as engines
from MedAILib.inference.engine import ChosenEngine, Engine, EngineError, Offer, Trial
from MedAILib.models.engines import VARIABLE, wanted_engine
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.store.adding import clean_store
from MedAILib.store.engines import engine_folder, engines_size, keep_trials, read_trials
from MedAILib.volume import Geometry, Volume

WINDOW = torch.linspace(-1, 1, 512).reshape(1, 1, 8, 8, 8)


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Slow(nn.Module):
    """Two classes by the sign of the value; takes its time, so that another can be faster."""

    def __init__(self, work: int) -> None:
        super().__init__()
        self.work, self.calls = work, 0

    def forward(self, window: Tensor) -> Tensor:
        self.calls += 1
        for _ in range(self.work):
            torch.sin(torch.ones(1 << 16))
        return torch.cat([-window, window], dim=1)


def offer(engine: Engine, **more: object) -> Offer:
    return Offer("another", lambda _: engine, **more)  # type: ignore[arg-type]


def chosen(
    usual: Engine,
    offers: list[Offer],
    calls: int = 4,
    known: dict[str, Trial] | None = None,
    notes: Notes | None = None,
) -> tuple[ChosenEngine, dict[str, Trial]]:
    kept: dict[str, Trial] = {}
    return ChosenEngine(usual, offers, calls, known or {}, kept.update, notes or Notes()), kept


def test_what_was_asked_for_is_taken_where_it_is_faster_and_says_the_same() -> None:
    usual = Slow(300)
    engine, kept = chosen(usual, [offer(lambda w: torch.cat([-w, w], dim=1), asked=True)], calls=100)
    for _ in range(5):
        assert torch.equal(engine(WINDOW), torch.cat([-WINDOW, WINDOW], dim=1))
    assert usual.calls == 2  # the window that was tried, and once more for the time
    assert kept["another"].agreement == 1 and kept["another"].offer_s < kept["another"].usual_s
    assert engine.said["engine"] == "another, after 1 windows by PyTorch"
    assert "times as fast" in engine.said["engine.reason"]


def test_what_says_something_else_is_not_taken_and_that_is_told() -> None:
    notes = Notes()
    engine, kept = chosen(Slow(100), [offer(lambda w: torch.cat([w, -w], dim=1), asked=True)], notes=notes)
    for _ in range(4):
        assert torch.equal(engine(WINDOW), torch.cat([-WINDOW, WINDOW], dim=1))
    assert kept["another"].agreement < 0.01
    assert engine.said["engine"] == "PyTorch, float32"
    assert len(notes.warnings) == 1 and "PyTorch ran in float32" in notes.warnings[0]


def test_windows_that_show_nothing_decide_nothing() -> None:
    notes = Notes()
    engine, kept = chosen(Slow(0), [offer(lambda w: torch.cat([-w, w], dim=1), asked=True)], 3, notes=notes)
    for _ in range(3):
        engine(torch.ones(1, 1, 8, 8, 8))
    assert not kept
    assert "nothing was seen" in notes.warnings[0]


def test_short_runs_try_nothing_that_nobody_asked_for() -> None:
    def never(window: Tensor) -> Engine:
        raise AssertionError

    engine, kept = chosen(Slow(0), [Offer("another", never)])
    for _ in range(4):
        engine(WINDOW)
    assert not kept and engine.said["engine.reason"] == "the run is too short"


def test_long_runs_try_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WORTH_S", 0.0)
    usual = Slow(300)
    engine, kept = chosen(usual, [offer(lambda w: torch.cat([-w, w], dim=1))], calls=50)
    for _ in range(50):
        engine(WINDOW)
    assert usual.calls == 2 and kept and engine.said["engine"] == "another, after 2 windows by PyTorch"


@pytest.mark.parametrize(("calls", "taken"), [(1000, True), (3, False)])
def test_what_is_known_decides_by_the_length_of_the_run(calls: int, taken: bool) -> None:
    known = {"another": Trial(usual_s=1.0, offer_s=0.5, open_s=10.0, agreement=1.0)}
    usual = Slow(0)
    engine, _ = chosen(usual, [offer(lambda w: torch.cat([-w, w], dim=1))], calls, known)
    engine(WINDOW)
    assert (usual.calls == 0) == taken


def test_an_engine_that_cannot_run_the_network_is_passed_over_unless_it_is_the_only_one_wanted() -> None:
    def broken(window: Tensor) -> Engine:
        raise EngineError("no such layer")

    engine, kept = chosen(Slow(0), [Offer("another", broken, asked=True)])
    engine(WINDOW)
    assert engine.said["engine"] == "PyTorch, float32" and "no such layer" in engine.said["engine.reason"]
    assert kept["another"].error == "no such layer"
    with pytest.raises(ModelError, match="no such layer"):
        chosen(Slow(0), [Offer("another", broken, asked=True, needed=True)])[0](WINDOW)


def volume(seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).normal(size=(1, 30, 34, 28)).astype(np.float32)
    return Volume(data, Geometry(data.shape[1:], np.eye(4)), "noise")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return random_bundle(tmp_path / "bundle", network_entry("UNet"))


@pytest.fixture
def openvino() -> None:
    pytest.importorskip("openvino.frontend", reason="OpenVINO is not installed")


def test_openvino_says_what_pytorch_says_and_is_converted_once(bundle: Path, openvino: None, store: Path) -> None:
    model = open_model(bundle, "cpu")
    usual = model.run(volume(), RunOptions(engine="torch"), Progress())
    other = model.run(volume(), RunOptions(engine="openvino"), Progress())
    assert usual.provenance["engine"] == "PyTorch, float32"
    assert other.provenance["engine"].startswith("OpenVINO 20")
    assert (other.layers == usual.layers).mean() > 0.9999
    files = sorted(store.rglob("*openvino*"))
    stamps = [path.stat().st_mtime_ns for path in files]
    again = open_model(bundle, "cpu").run(volume(1), RunOptions(engine="openvino"), Progress())
    assert ", after" not in again.provenance["engine"]
    assert [path.suffix for path in files] == [".bin", ".sha256", ".xml"]
    assert [path.stat().st_mtime_ns for path in files] == stamps
    weights = bytearray(files[0].read_bytes())
    weights[:64] = bytes(range(64))  # damaged on the disk: another number format would not show it
    files[0].write_bytes(weights)
    mended = open_model(bundle, "cpu").run(volume(), RunOptions(engine="openvino"), Progress())
    assert (mended.layers == usual.layers).mean() > 0.9999 and files[0].read_bytes() != weights
    assert engines_size() > 0
    clean_store()
    assert engines_size() == 0


def test_what_was_tried_is_told_of_a_model(bundle: Path, openvino: None, capsys: pytest.CaptureFixture[str]) -> None:
    open_model(bundle, "cpu").run(volume(), RunOptions(engine="openvino"), Progress())
    assert main(["models", "info", str(bundle)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Engines"))
    assert "OpenVINO" in line and "times as fast as PyTorch" in line
    assert main(["models", "info", str(bundle), "--json"]) == 0
    assert "OpenVINO" in json.loads(capsys.readouterr().out)["engines"][0]


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this processor has no bfloat16")
def test_half_precision_is_checked_and_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    options = RunOptions(precision="half", engine="torch")
    found = open_model(bundle, "cpu").run(volume(), options, notes)
    assert found.provenance["engine"].startswith(("PyTorch, bfloat16", "PyTorch, float32"))
    assert found.provenance["engine"].startswith("PyTorch, bfloat16") or notes.warnings
    assert "PyTorch, bfloat16" in json.dumps(read_trials(found.provenance["sha256"]))


def test_without_bfloat16_the_run_is_in_float32_and_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    notes = Notes()
    found = open_model(bundle, "cpu").run(volume(), RunOptions(precision="half", engine="torch"), notes)
    assert found.provenance["engine"] == "PyTorch, float32"
    assert "does not compute in bfloat16" in notes.warnings[0]


def test_the_variable_stands_in_for_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    assert wanted_engine(RunOptions()) == "torch"
    monkeypatch.setenv(VARIABLE, "abacus")
    assert wanted_engine(RunOptions(engine="torch")) == "torch"
    with pytest.raises(InputError, match="abacus"):
        wanted_engine(RunOptions())


@pytest.mark.parametrize("make", [lambda: RunOptions(engine="abacus"), lambda: RunOptions(precision="double")])
def test_words_that_mean_nothing_are_refused(make: Callable[[], RunOptions]) -> None:
    with pytest.raises(InputError, match="choose one of"):
        make()


def test_openvino_reports_to_nobody(openvino: None, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import MedAILib.inference.engine_openvino\n"
        "from openvino.tools.ovc.main import tm\n"
        "assert tm.__name__ == 'openvino.tools.ovc.telemetry_stub', tm\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_pytorch_alone_loads_no_openvino(bundle: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from MedAILib.models.open import open_model\n"
        "open_model(Path(sys.argv[1]), 'cpu')\n"
        "assert 'openvino' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(bundle)], check=True)


def test_damaged_records_are_tried_again(store: Path) -> None:
    keep_trials("ab" * 32, "here", {"another": {"usual_s": 1.0}})
    assert read_trials("ab" * 32) == {"here": {"another": {"usual_s": 1.0}}}
    (engine_folder("ab" * 32) / "tried.json").write_text("[1,")
    assert read_trials("ab" * 32) == {}


def test_a_model_that_segments_loads_nothing_of_explaining() -> None:
    program = "import sys, MedAILib.models.open\nassert not {'captum', 'openvino'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", program], check=True)
