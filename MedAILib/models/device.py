"""Where networks run."""

import torch

from MedAILib.errors import DeviceError

_CORES = torch.get_num_threads()


def find_device(name: str) -> torch.device:
    """The device of a name: "auto" (a CUDA GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:1".

    Raises:
        DeviceError: no such device here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    if name not in known:
        raise DeviceError(f"There is no device '{name}' here; choose one of {', '.join(known)}.")
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    return torch.device(name)


def share_cores(workers: int) -> None:
    """Let the calling thread use its share of the processor's cores, where `workers` threads compute side by side."""
    torch.set_num_threads(max(1, _CORES // workers))
