"""One run of one program in a process of its own, timed by stage: `python speed_programs.py JOB.json`; see `speed.py`.

Prints one JSON object. Networks are watched through hooks, preparing by a wrapper; all else is the difference.
"""

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

START = time.perf_counter(), time.process_time()
TESTING = Path(__file__).parents[1]


class Stages:
    """Seconds and CPU-seconds by stage; those inside of another stage count for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._open: list[tuple[str, float, float]] = []
        # Waits for what a device was given and has not done yet.
        self.settle: Callable[[], object] = lambda: None

    def enter(self, name: str) -> None:
        self._open.append((name, time.perf_counter(), time.process_time()))

    def leave(self) -> None:
        name, wall, cpu = self._open.pop()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        for stage, sign in ((name, 1), *([(self._open[-1][0], -1)] if self._open else [])):
            self.seconds[stage] = self.seconds.get(stage, 0) + sign * wall
            self.cpu[stage] = self.cpu.get(stage, 0) + sign * cpu
        self.calls[name] = self.calls.get(name, 0) + 1

    def clear(self) -> None:
        """Begin anew."""
        self.seconds, self.cpu, self.calls = {}, {}, {}

    def watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.enter(name)
            try:
                done = function(*args, **kwargs)
                self.settle()
                return done
            finally:
                self.leave()

        return call


def watch_network(stages: Stages, on_gpu: bool) -> None:
    """Time every forward of a whole network, whoever calls it; on a GPU until it is done."""
    import torch

    inner, depth = torch.nn.Module.__call__, [0]

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if depth[0] or not isinstance(self, torch.nn.Module):
            return inner(self, *args, **kwargs)
        depth[0] += 1
        stages.enter("network")
        try:
            done = inner(self, *args, **kwargs)
            if on_gpu:
                torch.cuda.synchronize()
            return done
        finally:
            depth[0] -= 1
            stages.leave()

    torch.nn.Module.__call__ = call  # type: ignore[method-assign]


def ours(job: dict[str, Any], stages: Stages) -> Callable[[], dict[str, str]]:
    """`medai segment`: read, run, write; as its own process does."""
    sys.path.insert(0, str(TESTING.parent))
    from MedAILib.models.lean import import_monai_for_inference
    from MedAILib.system_memory import keep_freed_memory
    from MedAILib.threads import wait_asleep

    keep_freed_memory()
    wait_asleep()
    import_monai_for_inference()
    from MedAILib.commands.outputs import Outcome, write_outcome
    from MedAILib.commands.targets import targets_for
    from MedAILib.files.images import read_image
    from MedAILib.inference import segment
    from MedAILib.models.open import open_model
    from MedAILib.progress import Progress
    from MedAILib.request import RunOptions

    asked = job.get("options", {})
    may_be_openvino = asked.get("engine") == "openvino" or asked.get("precision") == "half"
    if may_be_openvino and job["device"] == "cpu" and importlib.util.find_spec("openvino"):
        from MedAILib.inference import engine_openvino

        request = engine_openvino.openvino.InferRequest
        request.infer = stages.watched("network", request.infer)
    segment.prepared = stages.watched("prepare", segment.prepared)
    model = open_model(Path(job["model"]), job["device"])
    if job["kind"] == "nnunet":
        from MedAILib.models import nnunet_stage

        nnunet_stage.prepare_nnunet = stages.watched("prepare", nnunet_stage.prepare_nnunet)

    def run() -> dict[str, str]:
        volume = stages.watched("read", read_image)(Path(job["image"]))
        options = RunOptions(mirror=job["mirror"], **job.get("options", {}))
        segmentation = model.run(volume, options, Progress())
        target = targets_for(Path(job["output"]), volume)
        stages.watched("write", write_outcome)(Outcome(volume, segmentation, "speed"), target, Progress())
        return {
            key: segmentation.provenance[key]
            for key in ("engine", "engine.reason", "accumulation", "device", "memory")
            if key in segmentation.provenance
        }

    return run


def nnunet(job: dict[str, Any], stages: Stages) -> Callable[[], dict[str, str]]:
    """nnU-Net's own predictor, in one process."""
    sys.path.insert(0, str(TESTING))
    import nnunets  # noqa: F401 - quiets nnU-Net's import
    import torch
    from nnunetv2.inference import export_prediction, predict_from_raw_data
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    on_gpu = job["device"] != "cpu"
    own = predict_from_raw_data.nnUNetPredictor(
        use_mirroring=job["mirror"], perform_everything_on_device=on_gpu, device=torch.device(job["device"]),
        allow_tqdm=False,
    )  # fmt: skip
    own.initialize_from_trained_model_folder(job["model"], None)
    DefaultPreprocessor.run_case_npy = stages.watched("prepare", DefaultPreprocessor.run_case_npy)
    for module in (predict_from_raw_data, export_prediction):
        name = "convert_predicted_logits_to_segmentation_with_correct_shape"
        setattr(module, name, stages.watched("labels", getattr(export_prediction, name)))

    def run() -> dict[str, str]:
        output = job["output"].removesuffix(".nii.gz")
        own.predict_from_files_sequential([[job["image"]]], [output])
        return {"device": job["device"]}

    return run


def stock(job: dict[str, Any], stages: Stages) -> Callable[[], dict[str, str]]:
    """MONAI's own workflow on the bundle's own config."""
    from monai.bundle import ConfigWorkflow

    output = Path(job["output"])
    workflow = ConfigWorkflow(
        config_file=str(Path(job["model"]) / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=job["model"],
        dataset_dir=str(Path(job["image"]).parent),
        output_dir=str(output.parent / f"{output.name}.stock"),
    )
    workflow.initialize()

    def run() -> dict[str, str]:
        workflow.run()
        found = next((output.parent / f"{output.name}.stock").rglob("*.nii.gz"))
        found.rename(output)
        return {"device": job["device"]}

    return run


def bare(job: dict[str, Any], stages: Stages) -> Callable[[], dict[str, str]]:
    """The network alone, on the very windows that MedAI shows it, one after the other."""
    windows: list[Any] = []
    whole = ours(job, stages)
    import torch

    inner = torch.nn.Module.__call__

    def record(self: Any, *args: Any, **kwargs: Any) -> Any:
        windows.append((self, args[0].clone()))
        return torch.zeros((1, job["classes"], *args[0].shape[2:]), device=args[0].device)

    torch.nn.Module.__call__ = record  # type: ignore[method-assign]
    try:
        whole()
    finally:
        torch.nn.Module.__call__ = inner  # type: ignore[method-assign]
    stages.clear()

    def run() -> dict[str, str]:
        with torch.inference_mode():
            for network, window in windows:
                if job["device"] == "cpu":
                    network(window)
                else:
                    with torch.autocast("cuda", enabled=job["kind"] == "nnunet"):
                        network(window)
        return {"device": job["device"]}

    return run


PROGRAMS = {"ours": ours, "nnunet": nnunet, "stock": stock, "bare": bare}


def main() -> None:
    """Run one job and print what was measured."""
    job, stages = json.loads(Path(sys.argv[1]).read_text()), Stages()
    import psutil

    with redirect_stdout(sys.stderr):
        run = PROGRAMS[job["program"]](job, stages)
        import torch

        on_gpu = job["device"] != "cpu"
        if on_gpu:  # a stage ends when the GPU has done what it was given
            stages.settle = torch.cuda.synchronize
        torch.set_num_threads(job["threads"])
        watch_network(stages, on_gpu)
        opened = time.perf_counter() - START[0], time.process_time() - START[1]
        held = psutil.Process().memory_info().rss
        begin = time.perf_counter(), time.process_time()
        said = run()
        wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    stages.seconds["rest"] = wall - sum(stages.seconds.values())
    stages.cpu["rest"] = cpu - sum(stages.cpu.values())
    if on_gpu:
        said["gpu"] = torch.cuda.get_device_name()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "held_bytes": held,
        "start": opened[0], "start_cpu": opened[1], "wall": wall, "cpu": cpu + children.ru_utime + children.ru_stime,
        "stages": stages.seconds, "stages_cpu": stages.cpu, "forwards": stages.calls.get("network", 0), "said": said,
        "gpu_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
    }  # fmt: skip
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
