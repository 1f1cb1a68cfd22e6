"""What a training task of the kind "generation" says: the pictures, the two networks, and how they are taught."""

from dataclasses import dataclass
from typing import Any

from MedAILib.errors import InputError
from MedAILib.training.described import Described


@dataclass(frozen=True, kw_only=True)
class GenerationTask(Described):
    """Everything that decides the training of a DCGAN, read from `tasks/<name>.json`.

    Radford A. et al., Unsupervised representation learning with deep convolutional generative adversarial networks,
    ICLR 2016 (arXiv:1511.06434), from which the defaults of the tasks that ship come.

    Args:
        label: learn from the pictures of this label alone, as the data has it; empty for all. Only what is made of one
            label has a label itself, and can be given to a classifier.
        part: learn from this part of the data ("train"), where the data has parts.
        size: edge of the square pictures, pixels; others are resampled to it.
        latent: how many random numbers make a picture.
        generator: MONAI's `Generator`, without `latent_shape`.
        discriminator: MONAI's `Discriminator`, without `in_shape`.
        real_target: what the discriminator is asked to say of a real picture, 0.5 to 1 (one-sided label smoothing,
            Salimans et al. 2016, arXiv:1606.03498).
        precision: of the networks: "auto" (bfloat16 where the device computes in it, else float32), "float32" or
            "bfloat16"; losses are in float32.
        mirror: whether a picture may be mirrored, left to right.
        patience: epochs without gain after which training ends, judged every tenth epoch by how near made pictures
            come to a fifth of the real ones, which is not learnt from; the nearest's weights are taken. 0: never.
        effect: what its pictures did to a classifier that learnt from them too, measured; for the card.

    Raises:
        InputError: a value that makes no sense; the sentence names it.
    """

    label: str
    part: str
    size: int
    latent: int
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    seed: int
    epochs: int
    batch: int
    learning_rate: float
    beta1: float
    real_target: float
    ema_decay: float
    mirror: bool
    effect: str = ""
    precision: str = "float32"
    patience: int = 0

    def __post_init__(self) -> None:
        judge = self.discriminator
        wrong = {
            "part": self.part not in ("train", "val", "test"),
            "size": self.size < 4,
            "latent": self.latent < 1,
            "generator": self._made_size() != self.size,
            "discriminator": not judge.get("channels") or len(judge["channels"]) != len(judge.get("strides", ())),
            "epochs": self.epochs < 1,
            "batch": self.batch < 2,
            "learning_rate": not self.learning_rate > 0,
            "beta1": not 0 <= self.beta1 < 1,
            "real_target": not 0.5 <= self.real_target <= 1,
            "precision": self.precision not in ("auto", "float32", "bfloat16"),
            "patience": self.patience < 0,
            "ema_decay": not 0 <= self.ema_decay < 1,
        }
        if bad := [key for key, is_wrong in wrong.items() if is_wrong]:
            more = f" (it makes pictures of {self._made_size()} pixels)" if bad[0] == "generator" else ""
            raise InputError(f"The training task {self.name} has '{bad[0]}' = {getattr(self, bad[0])}{more}; mend it.")

    def _made_size(self) -> int:
        """Edge of what the generator makes; 0 where its description is incomplete or gives no square."""
        start, strides = self.generator.get("start_shape", ()), self.generator.get("strides", ())
        channels = self.generator.get("channels", ())
        if (
            len(start) != 3
            or start[1] != start[2]
            or not channels
            or channels[-1] != 1
            or len(channels) != len(strides)
        ):
            return 0
        made = int(start[1])
        for stride in strides:
            made *= int(stride)
        return made
