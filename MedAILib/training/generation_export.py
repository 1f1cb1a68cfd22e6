"""A trained generator's description as a MONAI bundle, of the shape of the Model Zoo's `mednist_gan`."""

from typing import Any

from MedAILib.training.bundle_config import DEVICE, EVALUATOR, LOADER, described
from MedAILib.training.generation_task import GenerationTask

# How many pictures stock MONAI makes when it runs the bundle as it is.
SAMPLES = 10


def metadata(task: GenerationTask, part: str, count: int) -> dict[str, Any]:
    """The bundle's `metadata.json`, of MONAI's schema, and MedAI's own entry "medai".

    Args:
        task: what was learnt; of a task of one label, every picture made has it.
        part: of the data that was learnt from; empty where it has no parts.
        count: how many pictures were learnt from.
    """
    whole = {"dtype": "float32", "is_patch_data": False}
    latent = {"type": "tuples", "format": "latent", "num_channels": 0, "spatial_shape": [task.latent]}
    picture = {"type": "image", "format": "magnitude", "num_channels": 1, "spatial_shape": [task.size, task.size]}
    needs = {"pillow": "11.0.0", "pytorch-ignite": "0.5.0"}
    return described(task, f"Generation: {task.description}", "png", needs) | {
        "network_data_format": {
            "inputs": {"latent": latent | whole | {"value_range": [], "channel_def": {}}},
            "outputs": {
                "pred": picture
                | whole
                | {"modality": task.modality, "value_range": [0, 1], "channel_def": {"0": "image"}},
            },
        },
        "medai": {
            "generation": {"label": task.label, "part": part, "pictures": count},
            "warnings": task.warnings,
        },
    }


def inference(task: GenerationTask) -> dict[str, Any]:
    """The bundle's `inference.json`, which stock MONAI runs: random numbers in, pictures out."""
    pred = {"keys": "pred"}
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "device": DEVICE,
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "output_dir": "$@bundle_root + '/eval'",
        "latent_size": task.latent,
        "num_samples": SAMPLES,
        "network_def": {"_target_": "Generator", "latent_shape": "@latent_size", **task.generator},
        "network": "$@network_def.to(@device)",
        "dataset": {
            "_target_": "Dataset",
            "data": "$[torch.randn(@latent_size) for i in range(@num_samples)]",
        },
        "dataloader": LOADER | {"shuffle": False},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", **pred, "sigmoid": True},
                {"_target_": "ToTensord", **pred, "track_meta": False},
                {
                    "_target_": "SaveImaged",
                    **pred,
                    "output_dir": "@output_dir",
                    "output_ext": "png",
                    "separate_folder": False,
                    "scale": 255,
                    "output_dtype": "$np.uint8",
                    "meta_key_postfix": None,
                },
            ],
        },
        "handlers": [
            {"_target_": "CheckpointLoader", "load_path": "@ckpt_path", "load_dict": {"model": "@network"}},
        ],
        "evaluator": EVALUATOR
        | {
            "prepare_batch": "$lambda batchdata, *_,**__: (batchdata.to(@device),None,(),{})",
            "val_handlers": "@handlers",
        },
        "inferring": ["$@evaluator.run()"],
    }
