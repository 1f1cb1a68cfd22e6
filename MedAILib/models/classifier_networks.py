"""The classification networks that a model's description may name; none of them ever downloads weights."""

from collections.abc import Callable
from typing import Any

from monai.networks.nets import (
    Classifier,
    DenseNet,
    DenseNet121,
    DenseNet169,
    DenseNet201,
    DenseNet264,
    EfficientNetBN,
    ResNet,
    SENet154,
    SEResNet50,
    SEResNet101,
    SEResNet152,
    SEResNext50,
    SEResNext101,
    TorchVisionFCModel,
    ViT,
    resnet10,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnet200,
)
from torch import nn

from MedAILib.errors import ModelError
from MedAILib.models.covariates import CovariateClassifier
from MedAILib.models.sequence import SequenceClassifier


def _without_download(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A network whose weights come from the model's own file, whatever the description says of pretrained ones."""

    def make(**arguments: Any) -> nn.Module:
        arguments.pop("progress", None)
        return build(**arguments | {"pretrained": False})

    return make


def _torchvision_network(**arguments: Any) -> nn.Module:
    """Torchvision's networks under MONAI's new last layer.

    Raises:
        ModelError: torchvision is not installed, or its parts don't fit PyTorch's.
    """
    try:
        import torchvision.models  # noqa: F401, PLC0415  # optional, and broken in some installations
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            "This model's network comes from torchvision, which is not installed here or does not fit PyTorch "
            f"({str(error).splitlines()[0]}); install the torchvision of the same build as PyTorch."
        ) from error
    pretrained = arguments.pop("pretrained", False) or arguments.get("weights") is not None
    if pretrained and arguments.get("model_name") in ("inception_v3", "googlenet"):
        # With weights, torchvision builds these two otherwise: the input is rescaled inside of the network.
        arguments |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    return TorchVisionFCModel(**arguments | {"weights": None, "pretrained": False})


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "Classifier": Classifier,
    "CovariateClassifier": CovariateClassifier,
    "DenseNet": DenseNet,
    "DenseNet121": _without_download(DenseNet121),
    "DenseNet169": _without_download(DenseNet169),
    "DenseNet201": _without_download(DenseNet201),
    "DenseNet264": _without_download(DenseNet264),
    "EfficientNetBN": _without_download(EfficientNetBN),
    "ResNet": ResNet,
    "SENet154": _without_download(SENet154),
    "SEResNet50": _without_download(SEResNet50),
    "SEResNet101": _without_download(SEResNet101),
    "SEResNet152": _without_download(SEResNet152),
    "SEResNext50": _without_download(SEResNext50),
    "SEResNext101": _without_download(SEResNext101),
    "SequenceClassifier": SequenceClassifier,
    "TorchVisionFCModel": _torchvision_network,
    "ViT": ViT,
    "resnet10": _without_download(resnet10),
    "resnet18": _without_download(resnet18),
    "resnet34": _without_download(resnet34),
    "resnet50": _without_download(resnet50),
    "resnet101": _without_download(resnet101),
    "resnet152": _without_download(resnet152),
    "resnet200": _without_download(resnet200),
}
# The two that are MedAI's own: a config names them by their place in this library.
OWN = {"CovariateClassifier": "MedAILib.models.covariates", "SequenceClassifier": "MedAILib.models.sequence"}
