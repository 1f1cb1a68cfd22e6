"""What a scene holds after runs during which the user did something to it: `python scene_digest.py --runs 100`.

A run takes an image or a sequence of them out of a scene, lets a threshold stand for the model, and brings the result
back; in between, at random moments, one to three random things happen to the scene. Afterwards the scene has to be the
same, node for node and voxel for voxel, as one in which these things happened first and the run came after them, or
not at all where its image is not there any more. Prints how many runs ended how, and the first difference if any.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from mrml import add_volume, digest, put_under, rotation

from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.results import Label, Segmentation
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.origin import find_origin, origin_of
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.sequence_results import SequenceOutputs
from MedAILib.scene.sequences import SequenceRun
from MedAILib.scene.write import Outputs, write_result

SHAPE = (6, 7, 8)
MATRIX = rotation((0, 0, 1), 20) @ np.diag([0.8, 0.8, 2.0, 1.0])
MOVE = rotation((1, 2, 3), 40)
LABELS = (Label(1, "bright", (0.2, 0.4, 0.6)), Label(2, "brighter"))
KINDS = ("volume", "volume into", "sequence")
FRAMES = 3

# Node IDs are the same in every scene that `fill` has filled.
SOURCE, SEGMENTATION = "vtkMRMLScalarVolumeNode1", "vtkMRMLSegmentationNode1"
SEQUENCE, BROWSER = "vtkMRMLSequenceNode1", "vtkMRMLSequenceBrowserNode1"


def fill(scene, seed=0):
    """An image under a transform, a segmentation of it with surfaces, a sequence in a browser."""
    rng = np.random.default_rng(seed)
    source = add_volume(scene, rng.integers(0, 300, SHAPE).astype(np.int16), MATRIX, f"patient {seed}")
    put_under(scene, source, [MOVE])
    older = np.zeros((1, *SHAPE), np.uint8)
    older[0, 1:4, 1:4, 1:4] = 1
    result = Segmentation(older, LABELS[:1], volume_from_nodes([source]).geometry)
    write_result(result, source, Outputs(surfaces=True, table=False))
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for frame in range(FRAMES):
        volume = add_volume(scene, rng.integers(0, 300, SHAPE).astype(np.int16), MATRIX, "frame")
        sequence.SetDataNodeAtValue(volume, str(frame))
        scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "player")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    found = {node.GetID() for node in (source, scene.GetNodeByID(SEGMENTATION), sequence, browser)}
    assert found == {SOURCE, SEGMENTATION, SEQUENCE, BROWSER}


def threshold(volume):
    labels = (volume.data[:1] >= 100).astype(np.uint8) + (volume.data[:1] >= 200)
    return Segmentation(labels, LABELS, volume.geometry, provenance={"model": "threshold"})


def of(node_id: str) -> Callable:
    """Let an event happen to a node, if it is there."""

    def decorate(event):
        def happen(scene):
            node = scene.GetNodeByID(node_id)
            if node is not None:
                event(scene, node)

        return happen

    return decorate


def close(scene):
    scene.Clear(False)


def close_and_open_another(scene):
    """The next patient's nodes have the IDs and the grids of the last one's."""
    scene.Clear(False)
    fill(scene, seed=1)


def rename(node_id):
    return of(node_id)(lambda _, node: node.SetName(node.GetName() + " renamed"))


def delete(node_id):
    return of(node_id)(lambda scene, node: scene.RemoveNode(node))


def move(node_id):
    return of(node_id)(lambda scene, node: put_under(scene, node, [MOVE @ np.diag([-1.0, 1.0, 1.0, 1.0])]))


def free(node_id):
    return of(node_id)(lambda _, node: node.SetAndObserveTransformNodeID(None))


@of(SOURCE)
def other_voxels(_, node):
    scratch = node.GetImageData().NewInstance()
    scratch.DeepCopy(node.GetImageData())
    node.SetAndObserveImageData(scratch)


@of(SOURCE)
def edit_voxels(_, node):
    node.GetImageData().GetPointData().GetScalars().FillComponent(0, 7)
    node.GetImageData().Modified()


@of(SOURCE)
def harden(scene, node):
    put_under(scene, node, [MOVE])
    node.HardenTransform()


@of(SEQUENCE)
def other_frame(scene, node):
    volume = add_volume(scene, np.ones(SHAPE, np.int16), MATRIX, "frame")
    node.SetDataNodeAtValue(volume, "1")
    scene.RemoveNode(volume)


@of(BROWSER)
def play(_, node):
    node.SetSelectedItemNumber((node.GetSelectedItemNumber() + 1) % FRAMES)


# What can happen, and of which kinds of runs it takes the ground away.
EVENTS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "close": (close, KINDS),
    "close and open another": (close_and_open_another, KINDS),
    "delete image": (delete(SOURCE), ("volume", "volume into")),
    "delete segmentation": (delete(SEGMENTATION), ("volume into",)),
    "delete sequence": (delete(SEQUENCE), ("sequence",)),
    "delete browser": (delete(BROWSER), ()),
    "delete transform": (delete("vtkMRMLLinearTransformNode1"), ()),
    "rename image": (rename(SOURCE), ()),
    "rename segmentation": (rename(SEGMENTATION), ()),
    "rename sequence": (rename(SEQUENCE), ()),
    "move image": (move(SOURCE), ()),
    "move segmentation": (move(SEGMENTATION), ()),
    "free image": (free(SOURCE), ()),
    "free segmentation": (free(SEGMENTATION), ()),
    "other voxels": (other_voxels, ("volume", "volume into")),
    "edit voxels": (edit_voxels, ("volume", "volume into")),
    "harden": (harden, ("volume", "volume into")),
    "other frame": (other_frame, ("sequence",)),
    "play": (play, ()),
}


def segment_volume(scene, kind, happen):
    """A run as the module's logic does it: what is remembered in between is plain data."""
    source = scene.GetNodeByID(SOURCE)
    origin, volume = origin_of(source), volume_from_nodes([source])
    del source
    happen()
    result = threshold(volume)
    happen()
    outputs = Outputs(label_map=True, into=SEGMENTATION if kind == "volume into" else None)
    write_result(result, find_origin(scene, origin), outputs)


def segment_sequence(scene, _, happen):
    """The same for a sequence; things happen while a frame is computed."""
    frames = SequenceRun(scene.GetNodeByID(SEQUENCE), SequenceOutputs(label_maps=True))

    def model(volume):
        happen()
        return threshold(volume)

    frames.run(model, Progress())


def run_once(random: Random) -> tuple[str, str, str]:
    """One run, with events at random moments, against what the scene should be then.

    Returns:
        Kind of run and events, how it ended ("placed" or "dropped"), and the first difference, empty if none.
    """
    kind = random.choice(KINDS)
    run, moments = (segment_sequence, FRAMES) if kind == "sequence" else (segment_volume, 2)
    names = random.choices(list(EVENTS), k=random.randint(1, 3))
    when = sorted(random.randrange(moments) for _ in names)
    plan = [
        [EVENTS[name][0] for name, at in zip(names, when, strict=True) if at == moment] for moment in range(moments)
    ]
    lost = any(kind in EVENTS[name][1] for name in names)
    with headless_scene() as owner:
        fill(owner.scene)

        def happen():
            for event in plan.pop(0):
                event(owner.scene)

        try:
            run(owner.scene, kind, happen)
            ended = "placed"
        except InputError:
            ended = "dropped"
            while plan:
                happen()
        found = comparable(owner.scene)
    with headless_scene() as owner:
        fill(owner.scene)
        for name in names:
            EVENTS[name][0](owner.scene)
        if not lost:
            run(owner.scene, kind, lambda: None)
        wanted = comparable(owner.scene)
    what = f"{kind}: " + ", ".join(f"{name} at {at}" for name, at in zip(names, when, strict=True))
    if ended != ("dropped" if lost else "placed"):
        return what, ended, f"it was {ended}"
    return what, ended, first_difference(found, wanted)


def comparable(scene) -> dict:
    """A digest without the numbers of hierarchy items, which count on from scene to scene."""
    found = digest(scene)
    found[""] = [re.sub(r'(SubjectHierarchyItem id|parent)="\d+"', r'\1=""', line) for line in found[""]]
    return found


def first_difference(found: dict, wanted: dict) -> str:
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            pairs = zip(found.get(key) or [None], wanted.get(key) or [None], strict=False)
            return f"{key}: " + next((f"{a!r} instead of {b!r}" for a, b in pairs if a != b), "more or fewer lines")
    return ""


def main() -> int:
    """Do the runs; 1 if a scene was not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random, endings = Random(options.seed), Counter()
    for _ in range(options.runs):
        what, ended, difference = run_once(random)
        endings[ended] += 1
        if difference:
            print(f"{what}\n{difference}")
            return 1
    print(f"{options.runs} runs, the scene as it should be after each: {dict(endings)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
