"""Colours for labels whose model names none."""

import colorsys
from collections.abc import Iterator, Sequence

import slicer

from MedAILib.results import Label

Color = tuple[float, float, float]

# Slicer's list of clearly different colours, which it also gives new segments; absent without the application.
_GENERIC_COLORS = "vtkMRMLColorTableNodeFileGenericColors.txt"
_GOLDEN_RATIO = 0.618034


def label_colors(scene: "slicer.vtkMRMLScene", labels: Sequence[Label], others: Sequence[Color] = ()) -> list[Color]:
    """One colour for each label, red, green, blue, 0 to 1: its own, or one that neither a label nor `others` have."""
    taken = {_rounded(color) for color in [*others, *(x.color for x in labels)] if color is not None}
    choices = _choices(scene)
    colors = []
    for label in labels:
        color = label.color
        if color is None:
            color = next(c for c in choices if _rounded(c) not in taken)
            taken.add(_rounded(color))
        colors.append(color)
    return colors


def fill_label_colors(
    table_node: "slicer.vtkMRMLColorTableNode", labels: Sequence[Label], colors: Sequence[Color], layer: int
) -> None:
    """Names and colours of one layer's labels, each at its value; values between are without name and colour.

    Args:
        table_node: becomes a table of the user's own.
        labels: of all layers.
        colors: one for each of them.
        layer: whose labels the table is for.
    """
    own = [(x, color) for x, color in zip(labels, colors, strict=True) if x.layer == layer]
    table_node.SetTypeToUser()
    table_node.SetHideFromEditors(False)
    table_node.SetNumberOfColors(max((x.value for x, _ in own), default=0) + 1)
    table_node.SetColor(0, "background", 0.0, 0.0, 0.0, 0.0)
    for label, color in own:
        table_node.SetColor(label.value, label.name, *color, 1.0)


def _choices(scene: "slicer.vtkMRMLScene") -> Iterator[Color]:
    """Slicer's generic colours, then hues that each lie far from those before, without end."""
    table = scene.GetNodeByID(_GENERIC_COLORS)
    rgba = [0.0] * 4
    for index in range(1, table.GetNumberOfColors() if table else 0):
        if table.GetColor(index, rgba):
            yield rgba[0], rgba[1], rgba[2]
    number = 0
    while True:
        yield colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.5 + 0.1 * (number % 4), 0.95 - 0.15 * (number // 8 % 3))
        number += 1


def _rounded(color: Color) -> tuple[int, ...]:
    """As 8-bit files keep it."""
    return tuple(round(255 * part) for part in color)
