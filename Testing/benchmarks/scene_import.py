"""Seconds from a label map of 512 x 512 x 400 to segments in the scene: `python scene_import.py 100`.

The segments are ellipsoids that fill about a third of the volume, and noise that fills it whole; names, colours and
terminology included. Prints one line for each: kind, segments, seconds of three rounds.
"""

import argparse
import time

import numpy as np

from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Geometry, Volume

SHAPE_KJI = (400, 512, 512)
ROUNDS = 3


def ellipsoids(count: int) -> np.ndarray:
    """Labels (K, J, I) of ellipsoids on a jittered lattice."""
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE_KJI, np.uint8)
    side = int(np.ceil(count ** (1 / 3)))
    cell = np.array(SHAPE_KJI) / side
    for number in range(count):
        center = (np.array(np.unravel_index(number, (side,) * 3)) + 0.5) * cell + rng.uniform(-5, 5, 3)
        radii = cell * rng.uniform(0.35, 0.5, 3)
        low, high = np.maximum(center - radii, 0).astype(int), np.minimum(center + radii, SHAPE_KJI).astype(int)
        axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
        distance = sum(
            (((x - c) / r) ** 2).reshape([-1 if a == n else 1 for a in range(3)])
            for n, (x, c, r) in enumerate(zip(axes, center, radii, strict=True))
        )
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        labels[box][distance <= 1] = number + 1
    return labels


def main() -> None:
    """Time the import of each kind of label map."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("segments", type=int)
    count = parser.parse_args().segments
    geometry = Geometry(SHAPE_KJI, np.diag([-0.8, -0.8, 1.0, 1.0]))
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(-1000, 1000, (1, *SHAPE_KJI), np.int16), geometry, "image")
    category, liver = Code("SCT", "123037004", "Anatomical Structure"), Code("SCT", "10200004", "Liver")
    labels = tuple(
        Label(value, f"structure {value}", tuple(rng.uniform(size=3).tolist()), Terminology(category, liver))
        for value in range(1, count + 1)
    )
    noise = rng.integers(0, count + 1, SHAPE_KJI, np.uint8)
    for kind, layer in (("ellipsoids", ellipsoids(count)), ("noise", noise)):
        result = Segmentation(layer[None], labels, geometry)
        seconds = []
        for _ in range(ROUNDS):
            with headless_scene() as owner:
                source = add_volume_nodes(owner.scene, volume)[0]
                start = time.perf_counter()
                node = write_result(result, source, Outputs(table=False))[0]
                seconds.append(time.perf_counter() - start)
                assert node.GetSegmentation().GetNumberOfSegments() == count
                del node  # its end is not part of the next import
        print(f"{kind}, {count} segments: {', '.join(f'{s:.2f}' for s in seconds)} s")


if __name__ == "__main__":
    main()
