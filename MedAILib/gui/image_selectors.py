"""The selectors of images: one for each channel of the model, under the model's own name for it."""

from collections.abc import Sequence
from typing import Any

# How many input channels a panel has a selector for; the Python console has no such limit.
MAX_CHANNELS = 8
# The parameters of the images, in the order of a model's channels; a selector and its label are called after each.
CHANNELS = ("inputVolume", *(f"inputVolume{number}" for number in range(2, MAX_CHANNELS + 1)))


def name_selectors(ui: Any, names: Sequence[str]) -> None:
    """Show a selector for each of these names, and hide the others."""
    for number, channel in enumerate(CHANNELS):
        label, selector = getattr(ui, f"{channel}Label"), getattr(ui, f"{channel}Selector")
        label.visible = selector.visible = number < len(names)
        if number < len(names):
            label.text = f"{names[number]}:"
