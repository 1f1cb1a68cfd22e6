"""Memory: what a run is foretold to take, and what gives way when that is too much."""

import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import network_entry, random_bundle
from classifier_bundles import DENSENET, classifier_bundle
from legitimate import nnunet, random_volume
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.estimate import demand, estimate_memory
from MedAILib.inference import ladder
from MedAILib.inference.ladder import CPU, ON_CPU, Memory, Rung, climb_down, or_on_cpu, rungs
from MedAILib.inference.restore import Decision
from MedAILib.inference.segment import Recipe, Segmented, segment
from MedAILib.inference.window import Windows
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, RunOptions, Slices
from MedAILib.spec import ModelSpec
from MedAILib.system_memory import available_memory, peak_process_memory, process_memory, total_memory
from MedAILib.volume import Geometry, Roi, Volume

ROOT = Path(__file__).parents[1]
CUDA = torch.device("cuda", 0)
GRID = Geometry((40, 48, 36), np.diag([-1.0, -1.0, 1.0, 1.0]))


class Listener(Progress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Hungry(nn.Module):
    """Says 1 above 0, and runs out of memory on windows of more voxels than it is given."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.one = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, window: Tensor) -> Tensor:
        self.seen.append(tuple(window.shape[2:]))
        if window.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")
        return torch.cat((-window, window), dim=1) * self.one


@pytest.fixture
def volume() -> Volume:
    data = np.random.default_rng(0).normal(size=(1, *GRID.shape_kji)).astype(np.float32)
    return Volume(data, GRID, "noise")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return read_spec(random_bundle(tmp_path_factory.mktemp("bundle"), network_entry("UNet", classes=4)))


def run(
    network: nn.Module, volume: Volume, progress: Progress, multiple: tuple[int, ...] | None = (4, 4, 4)
) -> Segmented:
    recipe = Recipe((), Windows((32, 32, 32)), Decision(), (), 1, 2, window_multiple=multiple)
    return segment(volume, network, recipe, RunOptions(), progress)


def test_window_that_does_not_fit_gives_way_to_smaller_ones_and_says_so(volume: Volume) -> None:
    listener, network = Listener(), Hungry(most=20_000)
    done = run(network, volume, listener)
    assert np.array_equal(done.layers[0], volume.data[0] > 0)
    assert network.seen[0] == (32, 32, 32)
    assert network.seen[-1] == (16, 32, 32)
    assert len(done.gave_way) == 1
    assert "16 x 32 x 32 instead of 32 x 32 x 32" in done.gave_way[0]
    assert [done.gave_way[0] in text for text in listener.warnings] == [True]


def test_nothing_gives_way_and_nothing_is_said_where_all_fits(volume: Volume) -> None:
    listener = Listener()
    assert run(Hungry(most=10**9), volume, listener).gave_way == ()
    assert listener.warnings == []


@pytest.mark.parametrize("multiple", [(4, 4, 4), None])
def test_memory_that_never_suffices_is_an_error_in_the_end(volume: Volume, multiple: tuple[int, ...] | None) -> None:
    network = Hungry(most=10)
    with pytest.raises(MemoryError, match="Tried to allocate"):
        run(network, volume, Progress(), multiple)
    assert set(network.seen) == (
        {(32, 32, 32)} if multiple is None else {(32, 32, 32), (16, 32, 32), (16, 16, 32), (16,) * 3}
    )


def test_model_that_takes_whole_images_is_not_cut_into_windows(volume: Volume) -> None:
    network = Hungry(most=10)
    recipe = Recipe((), Windows(), Decision(), (), 1, 2, window_multiple=(4, 4, 4))
    with pytest.raises(MemoryError):
        segment(volume, network, recipe, RunOptions(), Progress())
    assert network.seen == [(36, 48, 40)]


def test_ways_go_from_the_gpu_by_main_memory_and_smaller_windows_to_the_cpu() -> None:
    ways = list(rungs(CUDA, (64, 64, 32), (16, 16, 16)))
    told = [(way.device.type, way.sums.type, way.window, len(way.steps)) for way in ways]
    assert told == [
        ("cuda", "cuda", (64, 64, 32), 0),
        ("cuda", "cpu", (64, 64, 32), 1),
        ("cuda", "cpu", (32, 64, 32), 2),
        ("cuda", "cpu", (32, 32, 32), 2),
        ("cpu", "cpu", (64, 64, 32), 2),
        ("cpu", "cpu", (32, 64, 32), 3),
        ("cpu", "cpu", (32, 32, 32), 3),
    ]


@pytest.mark.parametrize(
    ("gpu_mib", "main_mib", "device", "sums", "warnings"),
    [
        (4000, 4000, "cuda", "cuda", 0),
        (270, 4000, "cuda", "cpu", 1),
        (120, 4000, "cuda", "cpu", 2),
        (1, 4000, "cpu", "cpu", 2),
    ],
)
def test_first_way_that_fits_is_taken_and_each_step_before_it_is_said(
    spec: ModelSpec, gpu_mib: int, main_mib: int, device: str, sums: str, warnings: int
) -> None:
    known = replace(spec, patch=(64, 64, 64), window_values=250.0)
    grid = Geometry((128, 256, 256), np.eye(4))
    listener = Listener()
    _, rung = climb_down(
        rungs(CUDA, (64, 64, 64), (8, 8, 8)),
        lambda way: demand(known, grid, np.int16, RunOptions(), way.window),
        lambda way: way,
        listener,
        lambda place: Memory(main_mib * 2**20, None if place.type == "cpu" else gpu_mib * 2**20),
    )
    assert (rung.device.type, rung.sums.type, len(listener.warnings)) == (device, sums, warnings)
    assert all("GiB of the GPU's memory are needed" in text for text in listener.warnings)


def test_run_that_fits_nowhere_is_refused_before_it_starts_with_what_it_needs(spec: ModelSpec) -> None:
    tried: list[Rung] = []
    with pytest.raises(InputError, match=r"about \d+\.\d GiB of main memory are needed, 0\.0 GiB are free.*region"):
        climb_down(
            rungs(CPU, (16, 24, 16), (4, 4, 4)),
            lambda way: demand(spec, Geometry((400, 512, 512), np.eye(4)), np.int16, RunOptions(), way.window),
            tried.append,
            Progress(),
            lambda place: Memory(10 * 2**20),
        )
    assert tried == []


def test_bundle_says_in_its_provenance_what_gave_way(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "overlap": 0.25}
    model = open_model(random_bundle(tmp_path / "model", network_entry(), inferer=inferer), "cpu")
    assert model.run(volume, RunOptions(), Progress()).provenance["memory"] == "enough"
    there = demand(model.spec, GRID, np.float32, RunOptions(), (16, 32, 32))
    free = there.on_cpu() - there.weights - there.input
    monkeypatch.setattr(ladder, "available_memory", lambda: free)
    listener = Listener()
    said = model.run(volume, RunOptions(), listener).provenance["memory"]
    assert "windows of 16 x 32 x 32 instead of 32 x 32 x 32" in said
    assert len(listener.warnings) == 1
    monkeypatch.setattr(ladder, "available_memory", lambda: 2**20)
    with pytest.raises(InputError, match=r"not enough memory.*region of interest"):
        model.run(volume, RunOptions(), listener)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_run_under_a_limit_of_its_address_space_is_refused_and_not_killed(tmp_path: Path) -> None:
    source = random_bundle(tmp_path / "model", network_entry())
    code = f"""
        import resource, numpy as np
        from pathlib import Path
        from MedAILib.errors import InputError
        from MedAILib.models.open import open_model
        from MedAILib.progress import Progress
        from MedAILib.request import ClassifyOptions, RunOptions, Slices
        from MedAILib.system_memory import _status
        from MedAILib.volume import Geometry, Volume
        model = open_model(Path({str(source)!r}), "cpu")
        data = np.zeros((1, 200, 256, 256), np.int16)
        data[0, 0] = 1
        used = _status("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, resource.RLIM_INFINITY))
        try:
            model.run(Volume(data, Geometry(data.shape[1:], np.eye(4))), RunOptions(), Progress())
        except InputError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "GiB of main memory are needed, 0.1 GiB are free" in done.stdout


def test_estimate_needs_no_torch(hippocampus: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from MedAILib.read_spec import read_spec\n"
        "from MedAILib.estimate import estimate_memory; from MedAILib.volume import Geometry\n"
        "print(estimate_memory(read_spec(Path(sys.argv[1])), Geometry((35, 51, 35), np.eye(4)), np.int16))\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(hippocampus)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert 2**26 < int(done.stdout) < 2**28


def grids() -> Iterator[tuple[Geometry, Geometry]]:
    """A smaller and a larger grid each."""
    yield Geometry((10, 20, 30), np.eye(4)), Geometry((60, 70, 80), np.eye(4))
    yield Geometry((64, 64, 64), np.eye(4)), Geometry((64, 64, 64), np.diag([3.0, 3.0, 3.0, 1.0]))


def test_estimate_grows_with_the_image_and_with_what_is_asked_for(spec: ModelSpec) -> None:
    for small, large in grids():
        assert estimate_memory(spec, small, np.int16) < estimate_memory(spec, large, np.int16)
    grid = Geometry((128, 128, 128), np.eye(4))
    usual = estimate_memory(spec, grid, np.int16)
    assert estimate_memory(spec, grid, np.float64) > usual
    assert estimate_memory(spec, grid, np.int16, RunOptions(probabilities=True)) > usual + 4 * 4 * 128**3
    assert estimate_memory(spec, grid, np.int16, RunOptions(roi=Roi((64, 64, 64), (30, 30, 30)))) < usual
    assert estimate_memory(replace(spec, patch=(96, 96, 96), window_values=None), grid, np.int16) > usual


def test_system_tells_its_memory() -> None:
    there, whole = available_memory(), total_memory()
    assert there is not None and whole is not None
    assert 0 < there < whole
    if sys.platform == "linux":
        assert 0 < (process_memory() or 0) <= (peak_process_memory() or 0) < whole


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone")
def test_freed_blocks_stay_with_the_process_until_they_are_trimmed() -> None:
    program = (
        "import ctypes, sys\n"
        "from MedAILib.system_memory import keep_freed_memory, process_memory, trim_memory\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]\n"
        "if sys.argv[1] == 'keep':\n"
        "    assert keep_freed_memory()\n"
        "block = libc.malloc(100 << 20)\n"
        "ctypes.memset(ctypes.c_void_p(block), 1, 100 << 20)\n"
        "libc.free(block)\n"
        "kept = process_memory()\n"
        "trim_memory()\n"
        "print(kept - process_memory() > 90 << 20)\n"
    )
    for word, expected in (("keep", "True"), ("leave", "False")):
        done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_what_runs_out_on_the_gpu_runs_on_the_cpu_and_says_so() -> None:
    tried: list[torch.device] = []

    def attempt(device: torch.device) -> str:
        tried.append(device)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    listener = Listener()
    assert or_on_cpu(CUDA, attempt, listener) == ("done", (ON_CPU,))
    assert tried == [CUDA, CPU] and listener.warnings == [
        "Memory is short (it ran out on the GPU): the model runs on the CPU, which is slower."
    ]


def test_other_failures_and_those_of_the_cpu_are_handed_on() -> None:
    def fails(error: Exception) -> Callable[[torch.device], None]:
        def attempt(device: torch.device) -> None:
            raise error

        return attempt

    with pytest.raises(RuntimeError, match="shape"):
        or_on_cpu(CUDA, fails(RuntimeError("wrong shape")), Progress())
    with pytest.raises(MemoryError):
        or_on_cpu(CPU, fails(MemoryError()), Progress())


@pytest.mark.parametrize("kind", ["nnU-Net", "classifier"])
def test_nnunet_and_classifiers_go_on_on_the_cpu_and_say_so_in_their_provenance(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    source = nnunet(folder) if kind == "nnU-Net" else classifier_bundle(folder, DENSENET, ["a", "b", "c"])
    model: Any = open_model(source, "cpu")
    image = random_volume()
    options: Any = RunOptions() if kind == "nnU-Net" else ClassifyOptions(slices=Slices(index=3))
    plain = model.run(image, options, Progress())
    assert plain.provenance["memory"] == "enough"
    # No GPU is here: what runs on the device of that name runs out of memory.
    way, listener = "_through_stages" if kind == "nnU-Net" else "_run_on", Listener()
    through = getattr(model, way)

    def short(*arguments: Any) -> Any:
        if CUDA in arguments or any(isinstance(one, Rung) and one.device == CUDA for one in arguments):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return through(*arguments)

    monkeypatch.setattr(model, way, short)
    monkeypatch.setattr(model, "_device", CUDA)
    monkeypatch.setattr(nn.Module, "to", lambda module, device: module)
    monkeypatch.setattr(ladder, "free_memory", lambda device: Memory(None))
    found = model.run(image, options, listener)
    assert found.provenance["memory"].endswith(ON_CPU) and found.provenance["device"] == "cpu"
    assert any("CPU" in text for text in listener.warnings)
