"""Images made from MedAISegment's console: of noise and of an image, by the real worker, into a real scene."""

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from test_generate import gan_bundle, image_bundle

from MedAILib.errors import InputError, MedAIError, SpecError
from MedAILib.models.generate import generate, translate
from MedAILib.request import GenerateOptions, RunOptions, RunRequest
from MedAILib.results import Generated
from MedAILib.volume import Geometry, Volume
from MedAILib.worker import wire, wire_results
from MedAILib.worker.foreign import ProtocolError
from MedAILib.worker.protocol import Kind, Message


@pytest.fixture(scope="module")
def gan(made_models: Path) -> Path:
    """Makes pictures of 16 x 8 pixels of noise."""
    return gan_bundle(made_models / "gan")


@pytest.fixture(scope="module")
def denoiser(made_models: Path) -> Path:
    """Makes an image of an image."""
    return image_bundle(made_models / "denoiser")


def test_images_of_noise_become_nodes_that_know_their_seeds(session, client, gan) -> None:
    nodes = session.logic(client).generate(str(gan), count=3, seed=5, device="cpu")
    assert [node.GetAttribute("MedAI.seed") for node in nodes] == ["5", "6", "7"]
    assert nodes == session.nodes("vtkMRMLScalarVolumeNode")
    made = generate(gan, GenerateOptions(3, 5), "cpu")
    for node, volume in zip(nodes, made.volumes, strict=True):
        assert np.array_equal(slicer.util.arrayFromVolume(node), volume.data[0])
        assert node.GetAttribute("MedAI.synthetic") == "yes"
        assert node.GetAttribute("MedAI.sha256")


def test_hands_of_the_zoo_are_made(session, client, shared_data: Path) -> None:
    (node,) = session.logic(client).generate(str(shared_data / "monai_bundles" / "mednist_gan"), seed=3, device="cpu")
    assert node.GetImageData().GetDimensions() == (64, 64, 1)


def test_an_image_of_an_image_lies_where_its_image_lies(session, client, denoiser) -> None:
    volume = session.add_volume()
    parent = session.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(parent.GetID())
    (node,) = session.logic(client).generate(str(denoiser), device="cpu", volumeNode=volume)
    assert node.GetTransformNodeID() == parent.GetID()
    there, here = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(there)
    volume.GetIJKToRASMatrix(here)
    matrix = np.array([[here.GetElement(r, c) for c in range(4)] for r in range(4)])
    assert np.allclose([[there.GetElement(r, c) for c in range(4)] for r in range(4)], matrix)
    image = Volume(slicer.util.arrayFromVolume(volume)[None].copy(), Geometry((20, 24, 28), matrix), "Head")
    assert np.allclose(slicer.util.arrayFromVolume(node), translate(denoiser, image, None, "cpu").volumes[0].data[0])


def test_images_made_in_the_background_come_with_progress(session, client, gan) -> None:
    made, texts = [], []
    run = session.logic(client).generateAsync(
        str(gan), 4, device="cpu", onDone=made.extend, onProgress=lambda state: texts.append(state.text)
    )
    session.until(lambda: run.finished)
    assert run.error is None
    assert len(made) == 4
    assert texts[-1] == "Done"


def test_scene_that_is_closed_meanwhile_gets_no_images(session, client, gan) -> None:
    made, errors = [], []
    run = session.logic(client).generateAsync(str(gan), 2, onDone=made.extend, onError=errors.append)
    session.scene.Clear()
    session.until(lambda: run.finished)
    assert "scene was closed" in str(errors[0])
    assert (made, session.nodes("vtkMRMLScalarVolumeNode")) == ([], [])


def test_image_that_is_removed_meanwhile_gets_none(session, client, denoiser) -> None:
    volume, errors = session.add_volume(), []
    run = session.logic(client).generateAsync(str(denoiser), volumeNode=volume, onError=errors.append)
    session.scene.RemoveNode(volume)
    session.until(lambda: run.finished)
    assert "Head was removed from the scene" in str(errors[0])
    assert session.nodes("vtkMRMLScalarVolumeNode") == []


def test_models_and_arguments_that_make_no_images_are_refused(session, client, gan, denoiser, segmenter) -> None:
    logic, volume = session.logic(client), session.add_volume()
    before = session.node_ids()
    with pytest.raises(SpecError, match="is for segmentation; it makes no images"):
        logic.generate(segmenter)
    with pytest.raises(SpecError, match="of noise; leave out volumeNode"):
        logic.generate(str(gan), volumeNode=volume)
    with pytest.raises(SpecError, match="of an image; give one as volumeNode"):
        logic.generate(str(denoiser))
    with pytest.raises(InputError, match="one image of an image"):
        logic.generate(str(denoiser), count=2, volumeNode=volume)
    with pytest.raises(InputError, match="1 to 10000 images"):
        logic.generate(str(gan), count=0)
    with pytest.raises(InputError, match="no-such-model"):
        logic.generate("no-such-model")
    with pytest.raises(MedAIError, match=r"2 channels, the model .* takes 1"):
        logic.generate(str(denoiser), volumeNode=[volume, volume])
    assert session.node_ids() == before


def test_worker_refuses_what_makes_no_images(client, segmenter) -> None:
    with pytest.raises(SpecError, match="makes no images of noise"):
        client.submit(RunRequest(segmenter, "cpu", GenerateOptions())).result()


def test_images_and_runs_without_one_pass_the_wire_as_they_are() -> None:
    request = RunRequest("gan", "cpu", GenerateOptions(3, 2**40))
    body, arrays = wire.pack_run(request, None, "/there")
    assert wire.unpack_run(Message(Kind.RUN, "1", body, arrays)) == (request, None, "/there")
    random = np.random.default_rng(0)
    volumes = tuple(
        Volume(random.random((2, k, 3, 4), np.float32), Geometry((k, 3, 4), np.diag([-1.0, 2, 0.1, 1])), f"image {k}")
        for k in (1, 2)
    )
    made = Generated(volumes, (8, 9), ("a", "b"), {"model": "gan"})
    there = wire_results.unpack_result(Message(Kind.RESULT, "1", *wire_results.pack_result(made)))
    assert isinstance(there, Generated)
    assert (there.seeds, there.names, there.provenance) == (made.seeds, made.names, made.provenance)
    for one, other in zip(there.volumes, volumes, strict=True):
        assert np.array_equal(one.data, other.data)
        assert one.geometry.same_grid_as(other.geometry)
        assert one.name == other.name


def test_run_of_another_task_without_an_image_is_refused() -> None:
    body, arrays = wire.pack_run(RunRequest("unet", "cpu", RunOptions()), None)
    with pytest.raises(ProtocolError, match="unreadable run"):
        wire.unpack_run(Message(Kind.RUN, "1", body, arrays))
