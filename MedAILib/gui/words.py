"""How sizes, times and the state of a run are put in words."""

from slicer.i18n import tr as _

from MedAILib.checks import MemoryNeed
from MedAILib.worker.client import JobState, WorkerStatus


def size_text(size_bytes: float) -> str:
    """A size as people say it: "12 MB", "3.4 GB"."""
    if size_bytes < 1e6:
        return f"{max(1, round(size_bytes / 1e3))} kB" if size_bytes else "0 kB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.1f} GB"


def time_text(seconds: float) -> str:
    """A time as people say it: "8 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def progress_text(state: JobState) -> str:
    """What is being done, how far it is, and how long it will take: "Segmenting: 3 of 12, about 8 s left".

    A text that counts by itself, such as "Frame 3 of 20", stays as it is.
    """
    text = state.text
    if state.state == "running" and state.total > 1 and f"of {state.total}" not in text:
        text = _("{text}: {done} of {total}").format(text=text, done=state.done, total=state.total)
    if state.seconds_left is not None and state.seconds_left >= 1:
        text = _("{text}, about {time} left").format(text=text, time=time_text(state.seconds_left))
    return text


def estimate_text(seconds: float | None, memory: MemoryNeed | None) -> str:
    """What a run will take: "Estimated: about 4 min, 2.1 GB of memory (14 GB are free)."; empty for nothing known."""
    parts = [] if seconds is None else [_("about {time}").format(time=time_text(seconds))]
    if memory is not None:
        needed, free = size_text(memory.needed), size_text(memory.free)
        parts.append(_("{needed} of memory ({free} are free)").format(needed=needed, free=free))
    return _("Estimated: {estimates}.").format(estimates=", ".join(parts)) if parts else ""


def worker_text(status: WorkerStatus) -> str:
    """What the worker holds: "Worker: 1.2 GB of memory; ready: hippocampus (cpu)"."""
    if not status.alive:
        return _("Worker: not started")
    ready = ", ".join(f"{model.name} ({model.device})" for model in status.models) or _("no model")
    if not status.rss_bytes:
        return _("Worker: ready: {models}").format(models=ready)
    return _("Worker: {size} of memory; ready: {models}").format(size=size_text(status.rss_bytes), models=ready)
