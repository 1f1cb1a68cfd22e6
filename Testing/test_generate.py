"""Models that make images: of noise and of another image, in the library, on the command line and in the scene."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from bundles import configs, network_entry, random_bundle, write_configs
from monai.bundle import ConfigWorkflow
from monai.networks import nets
from monai.networks.schedulers import DDIMScheduler
from numpy.typing import NDArray
from zoo import GRID, made_volume, stock_output

from MedAILib.cli import main
from MedAILib.errors import InputError, ModelError, SpecError, UntrustedCodeError
from MedAILib.files.images import read_image
from MedAILib.models.generate import generate, translate
from MedAILib.models.obstacles import why_not
from MedAILib.models.open import open_model
from MedAILib.progress import Cancellable, Cancelled
from MedAILib.read_spec import read_spec
from MedAILib.request import GenerateOptions, RunOptions
from MedAILib.results import Generated
from MedAILib.volume import Geometry, Roi, Volume

LATENT = (2, 8, 8)
UNET = {
    "spatial_dims": 2,
    "in_channels": 2,
    "out_channels": 2,
    "channels": [8, 16],
    "attention_levels": [False, True],
    "num_res_blocks": 1,
    "num_head_channels": [0, 8],
    "norm_num_groups": 4,
    "include_fc": False,
    "use_combined_linear": False,
}
AUTOENCODER = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "channels": [8, 16],
    "attention_levels": [False, False],
    "latent_channels": 2,
    "num_res_blocks": 1,
    "norm_num_groups": 4,
    "include_fc": False,
}
SCHEDULER = {
    "num_train_timesteps": 100,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "schedule": "scaled_linear_beta",
    "clip_sample": False,
}


@pytest.fixture
def gan(shared_data: Path) -> Path:
    return shared_data / "monai_bundles" / "mednist_gan"


def gan_bundle(folder: Path, **changes: Any) -> Path:
    """A small generator of pictures of 16 x 8 pixels in the way of the zoo's; `changes` are to its config."""
    torch.manual_seed(0)
    network = {"latent_shape": 4, "start_shape": [4, 4, 2], "channels": [4, 1], "strides": [2, 2]}
    metadata = {
        "version": "1",
        "task": "Generate pictures",
        "network_data_format": {
            "inputs": {"latent": {"type": "tuples", "format": "latent", "num_channels": 0}},
            "outputs": {"pred": {"type": "image", "format": "magnitude", "num_channels": 1, "channel_def": {"0": "x"}}},
        },
    }
    inference = {
        "size": 4,
        "network_def": {"_target_": "Generator", **network},
        "dataset": {"_target_": "Dataset", "data": "$[torch.rand(@size) for i in range(3)]"},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
    } | changes
    write_configs(folder, metadata, inference)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(nets.Generator(**network).state_dict(), folder / "models" / "model.pt")
    return folder


def diffusion_bundle(folder: Path, former: bool = False, **changes: Any) -> Path:
    """Latent diffusion in the way of the zoo's `brats_mri_axial_slices_generative_diffusion`, small."""
    torch.manual_seed(0)
    image = {"type": "feature", "format": "image", "num_channels": 2}
    metadata = {
        "version": "1",
        "task": "slices synthesis",
        "network_data_format": {"inputs": {"latent": image | {"type": "noise"}}, "outputs": {"pred": image}},
    }
    inference = {
        "imports": ["$import torch", "$from scripts.utils import visualize_2d_image"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "latent_shape": list(LATENT),
        "autoencoder_def": {"_target_": "monai.networks.nets.autoencoderkl.AutoencoderKL", **AUTOENCODER},
        "network_def": {"_target_": "monai.networks.nets.diffusion_model_unet.DiffusionModelUNet", **UNET},
        "load_autoencoder_path": "$@bundle_root + '/models/model_autoencoder.pt'",
        "load_autoencoder": "$@autoencoder_def.load_old_state_dict(torch.load(@load_autoencoder_path))",
        "load_diffusion_path": "$@bundle_root + '/models/model.pt'",
        "load_diffusion": "$@network_def.load_old_state_dict(torch.load(@load_diffusion_path))",
        "noise_scheduler": {
            "_target_": "monai.networks.schedulers.ddim.DDIMScheduler",
            "_requires_": ["@load_diffusion", "@load_autoencoder"],
            **SCHEDULER,
        },
        "noise": "$torch.randn([1]+@latent_shape).to(@device)",
        "set_timesteps": "$@noise_scheduler.set_timesteps(num_inference_steps=5)",
        "inferer": {"_target_": "scripts.ldm_sampler.LDMSampler", "_requires_": "@set_timesteps"},
        "run": ["$@inferer.run(@noise, @autoencoder, @diffusion, @noise_scheduler, 'x.png')"],
    } | changes
    write_configs(folder, metadata, inference)
    (folder / "models").mkdir(exist_ok=True)
    for name, network in (
        ("model", nets.DiffusionModelUNet(**UNET)),
        ("model_autoencoder", nets.AutoencoderKL(**AUTOENCODER)),
    ):
        for part in network.parameters():  # some begin as zeros, which would hide a part of the network
            torch.nn.init.normal_(part, std=0.2)
        weights = network.state_dict()
        torch.save(as_before(weights) if former else weights, folder / "models" / f"{name}.pt")
    return folder


def as_before(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the names that MONAI's former generative package gave them."""
    found = {}
    for key, value in weights.items():
        name = key.replace("postconv", "conv")
        name = name.replace(".attn.out_proj.", ".proj_attn.").replace(".attn.to_", ".to_")
        found[name.replace(".out_proj.", ".to_out.0.") if "transformer_blocks" in key else name] = value
    return found


def diffused(
    bundle: Path, seed: int, former: bool = False, axes: int = 2, latent: tuple[int, ...] = LATENT
) -> NDArray[np.float32]:
    """The image (X, Y[, Z]) by MONAI's own networks and scheduler, as the zoo's sampler puts them together."""
    unet = nets.DiffusionModelUNet(**UNET | {"spatial_dims": axes}).eval()
    autoencoder = nets.AutoencoderKL(**AUTOENCODER | {"spatial_dims": axes}).eval()
    for network, name in ((unet, "model"), (autoencoder, "model_autoencoder")):
        weights = torch.load(bundle / "models" / f"{name}.pt", weights_only=True)
        (network.load_old_state_dict if former else network.load_state_dict)(weights)
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(num_inference_steps=5)
    image = torch.randn((1, *latent), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for step in scheduler.timesteps:
            output = unet(image, timesteps=torch.tensor([step]).long(), context=None)
            image, _ = scheduler.step(output, int(step), image)
        return autoencoder.decode_stage_2_outputs(image)[0, 0].numpy()


def image_bundle(folder: Path, classes: int = 1, **changes: Any) -> Path:
    """A model that makes an image of an image."""
    post = {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "ScaleIntensityRanged", "keys": "pred", "a_min": 0, "a_max": 1, "b_min": -10, "b_max": 90},
        ],
    }
    network = network_entry(classes=classes)
    random_bundle(folder, network, **({"postprocessing": post} | changes))
    metadata, _ = configs(network)
    metadata["task"] = "denoising"
    metadata["network_data_format"]["outputs"]["pred"] |= {"format": "magnitude", "channel_def": {"0": "clean"}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return folder


def test_a_gan_of_the_zoo_makes_the_hands_that_stock_monai_makes(gan: Path, tmp_path: Path) -> None:
    seeds = range(4)
    noise = [torch.rand(64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    told = {
        "bundle_root": str(gan),
        "output_dir": str(tmp_path / "theirs"),
        "dataset#data": noise,
        "device": torch.device("cpu"),
    }
    workflow = ConfigWorkflow(
        str(gan / "configs" / "inference.json"), workflow_type="infer", logging_file=False, run_id="inferring", **told
    )
    workflow.initialize()
    workflow.run()
    assert main(["generate", "-m", str(gan), "-o", str(tmp_path / "ours"), "--count", "4", "--quiet"]) == 0
    theirs = [np.asarray(PIL.Image.open(path)) for path in sorted((tmp_path / "theirs").glob("*.png"))]
    ours = [np.asarray(PIL.Image.open(tmp_path / "ours" / f"mednist_gan-{seed}.png")) for seed in seeds]
    assert len(theirs) == 4 and np.array_equal(ours, theirs)
    assert np.std(ours) > 50 and not np.array_equal(ours[0], ours[1])


def test_an_image_is_its_seeds_whatever_the_count(tmp_path: Path) -> None:
    folder = gan_bundle(tmp_path / "m")
    three, last = generate(folder, GenerateOptions(3, 7)), generate(folder, GenerateOptions(1, 9))
    assert three.seeds == (7, 8, 9) and np.array_equal(three.volumes[2].data, last.volumes[0].data)
    assert not np.array_equal(three.volumes[0].data, three.volumes[1].data)
    assert three.volumes[0].data.shape == (1, 1, 8, 16)  # MONAI's first axis is a picture's width


def test_latent_diffusion_makes_volumes_along_r_a_and_s(tmp_path: Path) -> None:
    deep = {"_target_": "monai.networks.nets.autoencoderkl.AutoencoderKL", **AUTOENCODER, "spatial_dims": 3}
    unet = {"_target_": "monai.networks.nets.diffusion_model_unet.DiffusionModelUNet", **UNET, "spatial_dims": 3}
    folder = diffusion_bundle(tmp_path / "m", latent_shape=[2, 8, 4, 12], autoencoder_def=deep, network_def=unet)
    for name, network in (
        ("model", nets.DiffusionModelUNet(**UNET | {"spatial_dims": 3})),
        ("model_autoencoder", nets.AutoencoderKL(**AUTOENCODER | {"spatial_dims": 3})),
    ):
        for part in network.parameters():
            torch.nn.init.normal_(part, std=0.1)
        torch.save(network.state_dict(), folder / "models" / f"{name}.pt")
    path = folder / "configs" / "metadata.json"
    content = json.loads(path.read_text("utf-8")) | {"medai": {"spacing_mm": [1.1, 1.2, 1.3]}}
    path.write_text(json.dumps(content), encoding="utf-8")
    made = generate(folder).volumes[0]
    theirs = diffused(folder, 0, axes=3, latent=(2, 8, 4, 12))
    assert theirs.shape == (16, 8, 24) and theirs.std() > 0.01
    assert np.abs(made.data[0] - theirs.T).max() < 1e-5  # X, Y and Z of the network are I, J and K
    assert np.allclose(made.geometry.ijk_to_ras, np.diag([1.1, 1.2, 1.3, 1]))


@pytest.mark.parametrize("former", [False, True])
def test_latent_diffusion_equals_monais_own_parts(former: bool, tmp_path: Path) -> None:
    folder = diffusion_bundle(tmp_path / "m", former)
    assert read_spec(folder).obstacle == "" and why_not(folder) == ""
    made = generate(folder, GenerateOptions(1, 3)).volumes[0]
    theirs = diffused(folder, 3, former)
    assert theirs.shape == (16, 16) and theirs.std() > 0.01
    assert np.abs(made.data[0, 0] - theirs.T).max() < 1e-5


def test_weights_of_the_former_package_that_lack_one_are_refused(tmp_path: Path) -> None:
    folder = diffusion_bundle(tmp_path / "m", former=True)
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    del weights["middle_block.attention.to_q.weight"]
    torch.save(weights, folder / "models" / "model.pt")
    with pytest.raises(ModelError, match=r"middle_block.attention.attn.to_q.weight' is missing"):
        open_model(folder, "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inferer": {"_target_": "scripts.ldm_sampler.Other"}}, "scripts/ldm_sampler.py"),
        ({"noise": "$__import__('os').system('touch x')"}, "how it makes images is not understood"),
        ({"noise": "$torch.randn([1, 4, 10**9])"}, "not possible"),
        ({"noise": "$torch.randn([2, 2, 8, 8])"}, "2 images at once"),
        ({"noise": "$torch.load('x')"}, "not understood"),
        ({"set_timesteps": "$@noise_scheduler.set_timesteps(num_inference_steps=10**9)"}, "how many steps"),
        ({"set_timesteps": "$open('x').read()"}, "how many steps"),
        ({"load_autoencoder": "$print('x')"}, "which weights"),
        ({"load_autoencoder_path": "/etc/passwd"}, "outside the bundle"),
        ({"load_autoencoder_path": "..\\x.pt"}, "outside the bundle"),
        ({"autoencoder_def": "x"}, "describes no network"),
        ({"noise_scheduler": {"_target_": "subprocess.Popen"}}, "noise scheduler 'subprocess.Popen' is not one"),
        ({"noise_scheduler": {"_target_": "DDIMScheduler", "schedule": "evil"}}, "'schedule' = 'evil'"),
        ({"noise_scheduler": {"_target_": "DDIMScheduler", "num_train_timesteps": 3}}, "make no sense"),
        ({"preprocessing": {"_target_": "Lambda", "func": "$lambda x: x"}}, "prepares its noise"),
    ],
)
def test_what_a_generator_asks_for_beyond_the_list_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = diffusion_bundle(tmp_path / "m", **changes)
    with pytest.raises((SpecError, UntrustedCodeError)) as caught:
        open_model(folder, "cpu")
    assert words in str(caught.value) and words in why_not(folder)


def test_weights_that_make_no_image_are_told(tmp_path: Path) -> None:
    folder = gan_bundle(tmp_path / "m")
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    torch.save({key: value * float("nan") for key, value in weights.items()}, folder / "models" / "model.pt")
    with pytest.raises(ModelError, match="not finite"):
        generate(folder)
    folder = gan_bundle(tmp_path / "n", size=5)
    with pytest.raises(ModelError, match="can't make an image of its noise"):
        generate(folder)


def test_generating_can_be_cancelled_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Cancellable()
    progress.cancel()
    with pytest.raises(Cancelled):
        generate(gan_bundle(tmp_path / "m"), progress=progress)
    weights = tmp_path / "m" / "models" / "model.pt"
    weights.write_bytes(b"damaged")
    assert main(["generate", "-m", str(tmp_path / "m"), "-o", str(tmp_path / "out")]) == 2
    assert "were not loaded" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "1 to 10000 images"),
        (["--seed", "-1"], "at least 0"),
        (["--count", "2", "-o", "x.png"], "don't go into one file"),
        (["-o", "x.seg.nrrd2"], "stands for no kind of image"),
        (["image.nii.gz"], "leave out image.nii.gz"),
        (["--trust-code", "0" * 64], "executes no code"),
    ],
)
def test_wrong_calls_are_told_in_a_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = gan_bundle(tmp_path / "m")
    output = [] if "-o" in arguments else ["-o", str(tmp_path / "out")]
    assert main(["generate", "-m", str(folder), *output, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_models_of_another_task_say_which_command_is_theirs(
    hippocampus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, image = gan_bundle(tmp_path / "m"), made_file(tmp_path)
    assert main(["generate", "-m", str(hippocampus), "-o", str(tmp_path / "x.png")]) == 2
    assert "is for segmentation" in capsys.readouterr().err
    assert main(["segment", str(image), "-m", str(folder), "-o", str(tmp_path / "x.nii.gz")]) == 2
    assert "medai generate" in capsys.readouterr().err
    words = ["--data", str(tmp_path), "-o", str(tmp_path / "r")]
    assert main(["evaluate", "-m", str(folder), *words]) == 2
    assert "makes images" in capsys.readouterr().err
    with pytest.raises(SpecError, match="makes no images of images"):
        translate(folder, Volume(np.zeros((1, 4, 4, 4)), Geometry((4, 4, 4), np.eye(4))))


def made_file(folder: Path) -> Path:
    made_volume(folder / "images", 1, ((18, 20, 16), GRID[1]))
    return folder / "images" / "0.nii.gz"


def test_the_command_line_writes_pictures_volumes_and_a_scene(
    tmp_path: Path, scene: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from MedAILib.scene.storage import load_scene

    folder = gan_bundle(tmp_path / "m")
    out = tmp_path / "out"
    assert main(["generate", "-m", str(folder), "-o", str(out), "--count", "2", "--seed", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["seeds"] == [4, 5] and {Path(path).name for path in said["outputs"]} == {
        "m-4.nii.gz",
        "m-4.png",
        "m-5.nii.gz",
        "m-5.png",
        "scene.mrb",
    }
    picture, volume = read_image(out / "m-5.png"), read_image(out / "m-5.nii.gz")
    assert picture.geometry.same_grid_as(volume.geometry)
    assert np.array_equal(picture.data, (255 * volume.data).astype(np.uint8))
    load_scene(scene, out / "scene.mrb")
    node = scene.GetFirstNodeByName("m 5")
    assert node.GetAttribute("MedAI.seed") == "5" and node.GetAttribute("MedAI.synthetic") == "yes"


def test_an_image_of_an_image_agrees_with_stock_monai(tmp_path: Path) -> None:
    folder = image_bundle(tmp_path / "m")
    assert read_spec(folder).task == "image-to-image" and read_spec(folder).obstacle == ""
    volume = made_volume(tmp_path / "images", 1, ((26, 30, 20), GRID[1]))
    made = translate(folder, volume).volumes[0]
    theirs = stock_output(folder, tmp_path / "images")
    assert made.geometry.same_grid_as(volume.geometry) and np.ptp(theirs) > 5
    assert np.abs(made.data - theirs).max() < 0.01


def test_an_image_of_an_image_is_written_on_its_grid_and_beside_it(
    tmp_path: Path, scene: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from MedAILib.scene.storage import load_scene

    folder, image = image_bundle(tmp_path / "m", classes=2), made_file(tmp_path)
    out = tmp_path / "out"
    assert main(["generate", str(image), "-m", str(folder), "-o", str(out), "--quiet"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["m-image.nii.gz", "scene.mrb"]
    written = read_image(out / "m-image.nii.gz")
    assert written.data.dtype == np.float32 and written.channels == 2
    assert written.geometry.same_grid_as(read_image(image).geometry)
    load_scene(scene, out / "scene.mrb")
    names = [scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode").GetName() for n in range(3)]
    assert names == ["0", "0 m clean", "0 m structure 1"]
    assert main(["generate", "-m", str(folder), "-o", str(out)]) == 2
    assert "name one" in capsys.readouterr().err


def test_bad_images_for_a_model_of_images_are_told(tmp_path: Path) -> None:
    folder = image_bundle(tmp_path / "m")
    data = np.ones((1, 18, 20, 16), np.float32)
    data[0, 3, 4, 5] = np.nan
    with pytest.raises(InputError, match="1 NaN"):
        translate(folder, Volume(data, Geometry((18, 20, 16), np.eye(4)), "broken"))
    with pytest.raises(InputError, match="2 channels"):
        translate(folder, Volume(np.ones((2, 8, 8, 8)), Geometry((8, 8, 8), np.eye(4)), "two"))


def test_outside_of_a_region_of_interest_an_image_is_zero(tmp_path: Path) -> None:
    folder = image_bundle(tmp_path / "m")
    volume = Volume(np.random.default_rng(0).normal(size=(1, 18, 20, 22)), Geometry((18, 20, 22), np.eye(4)))
    made = translate(folder, volume, RunOptions(roi=Roi((10, 10, 9), (8, 8, 8)))).volumes[0].data[0]
    box = (slice(5, 14), slice(6, 15), slice(6, 15))
    assert made[box].all()
    made[box] = 0
    assert not made.any()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x + 1"}, "would execute 'lambda x: x + 1'"),
        ({"_target_": "scripts.own.Denoised", "keys": "pred"}, "scripts/own.py"),
        ({"_target_": "GaussianSmoothd", "keys": "pred"}, "'GaussianSmoothd'"),
        ({"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"}, "nearest voxel"),
    ],
)
def test_what_a_model_of_images_does_beyond_the_list_is_refused(
    step: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = image_bundle(tmp_path / "m", postprocessing={"_target_": "Compose", "transforms": [step]})
    assert words in why_not(folder)


def test_a_result_of_images_refuses_what_is_none() -> None:
    grid = Geometry((1, 1, 1), np.eye(4))
    with pytest.raises(InputError, match="float64"):
        Generated((Volume(np.zeros((1, 1, 1, 1)), grid),))
    with pytest.raises(InputError, match="seeds"):
        Generated((Volume(np.zeros((1, 1, 1, 1), np.float32), grid),), (1, 2))
