"""How fast models were on this user's devices, kept in the settings, and how long a run will take by that."""

import math
import os
from urllib.parse import quote

import slicer

from MedAILib.errors import InputError
from MedAILib.estimate import network_voxels, usual_seconds
from MedAILib.request import RunOptions, RunRequest
from MedAILib.spec import ModelSpec
from MedAILib.volume import Geometry

# Seconds that a model took for each voxel that its network was shown, by computer, device and model.
SETTING = "MedAI/Pace"
# Runs that took less say nothing of longer ones.
SHORTEST_S = 0.05


def expected_seconds(
    request: RunRequest, spec: ModelSpec, geometry: Geometry, place: str, destination: str
) -> float | None:
    """About how long the model will compute on one image; None where nothing tells.

    By what this model took before on this device, else by what a network of its kind takes on this computer's CPU.

    Args:
        request: the run.
        spec: its model's description.
        geometry: the image's grid.
        place: the device that it will run on: "cpu", "cuda:0".
        destination: the other computer that the worker runs on; empty for this one.
    """
    voxels = _voxels(request, spec, geometry)
    if voxels is None:
        return None
    pace = _pace(_key(request, place, destination))
    if pace is not None:
        return pace * voxels
    return usual_seconds(spec, voxels, os.cpu_count() or 1) if place == "cpu" and not destination else None


def keep_pace(
    request: RunRequest, spec: ModelSpec, geometry: Geometry, place: str, destination: str, seconds: float
) -> None:
    """Remember how long the model took for one image; arguments as for `expected_seconds`."""
    voxels = _voxels(request, spec, geometry)
    if voxels and seconds >= SHORTEST_S:
        slicer.app.settings().setValue(_key(request, place, destination), repr(seconds / voxels))


def _voxels(request: RunRequest, spec: ModelSpec, geometry: Geometry) -> int | None:
    if not isinstance(request.options, RunOptions) or spec.task != "segmentation":
        return None
    try:
        return network_voxels(spec, geometry, request.options)
    except InputError:  # a region beside the image
        return None


def _pace(key: str) -> float | None:
    try:
        pace = float(slicer.app.settings().value(key, "") or "nan")
    except ValueError:  # somebody wrote into the settings
        return None
    return pace if math.isfinite(pace) and pace > 0 else None


def _key(request: RunRequest, place: str, destination: str) -> str:
    """Where in the settings; names are quoted, as a slash begins a group there."""
    return "/".join((SETTING, *(quote(part, safe="") for part in (destination or "here", place, request.model))))
