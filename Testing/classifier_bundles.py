"""Small classification bundles that the tests make: real MONAI networks with random or hand-set weights."""

from pathlib import Path
from typing import Any

import torch
from bundles import write_configs

from MedAILib.config import Config
from MedAILib.models.networks import build_network

DENSENET = {
    "_target_": "DenseNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 3,
    "init_features": 4,
    "growth_rate": 4,
    "block_config": [2, 2],
}

# What the classifiers that several test files use decide between.
CLASSES = ["square", "disc", "none"]


def classifier_configs(
    network: dict[str, Any],
    classes: list[str],
    own: dict[str, Any] | None = None,
    steps: list[dict[str, Any]] | None = None,
    post: list[dict[str, Any]] | None = None,
    *,
    channels: int = 1,
    outputs: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`metadata.json` and `inference.json` as the Model Zoo writes them for a classifier."""
    image = {"type": "image", "format": "magnitude", "modality": "US", "num_channels": channels}
    pred = {"type": "probabilities", "format": "classes", "num_channels": outputs or len(classes)}
    metadata: dict[str, Any] = {
        "version": "0.2.0",
        "name": "A test's classifier",
        "network_data_format": {
            "inputs": {"image": image | {"channel_def": {"0": "image"} if channels in (1, 3) else {}}},
            "outputs": {"pred": pred | {"channel_def": {str(n): name for n, name in enumerate(classes)}}},
        },
    }
    if own is not None:
        metadata["medai"] = {"classification": own}
    image_key, pred_key = {"keys": "image"}, {"keys": "pred"}
    told = [{"_target_": "ScaleIntensityd"}] if steps is None else steps
    inference = {
        "network_def": network,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image_key},
                {"_target_": "EnsureChannelFirstd", **image_key},
                *(image_key | step for step in told),
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [pred_key | step for step in post or [{"_target_": "Activationsd", "softmax": True}]],
        },
    }
    return metadata, inference


def classifier_bundle(folder: Path, network: dict[str, Any], classes: list[str], seed: int = 0, **changes: Any) -> Path:
    """A whole bundle whose weights are random but fixed by the seed."""
    write_configs(folder, *classifier_configs(network, classes, **changes))
    save_random_weights(folder, network, seed)
    return folder


def save_random_weights(folder: Path, network: dict[str, Any], seed: int = 0) -> None:
    """Give a bundle's folder weights for its network; the output's are spread so that classes differ."""
    torch.manual_seed(seed)
    component = Config({"network": network}, folder).get("network")
    state = build_network(component.target, component.arguments).state_dict()
    last = [name for name, value in state.items() if value.ndim == 2][-1]
    state[last] = state[last] * 30
    (folder / "models").mkdir(exist_ok=True)
    torch.save(state, folder / "models" / "model.pt")
