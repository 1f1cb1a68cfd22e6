"""A classifier of a sequence of images: a network for each frame, then a recurrent layer over the frames."""

import torch
from torch import Tensor, nn

_RECURRENT: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class SequenceClassifier(nn.Module):
    """A backbone's features of each frame in turn, a GRU or LSTM over them, and the classes from its last state.

    Args:
        backbone: a network from an image to a vector of features.
        features: length of that vector.
        out_channels: of the output.
        hidden: width of the recurrent layer.
        recurrent: "gru" or "lstm".
        bidirectional: read the frames in both directions.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        out_channels: int,
        hidden: int = 64,
        recurrent: str = "gru",
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if recurrent not in _RECURRENT:
            raise ValueError(f"the recurrent layer is gru or lstm, not {recurrent}")
        self.backbone = backbone
        self.recurrent = _RECURRENT[recurrent](features, hidden, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, out_channels) of sequences (B, T, C, X, Y[, Z])."""
        if self.training:  # at once: faster, and batch norms see all frames
            frames = self.backbone(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        else:  # one after another: only one frame's inner values are held
            frames = torch.stack([self.backbone(x[:, n]) for n in range(x.shape[1])], dim=1)
        _, state = self.recurrent(frames)
        state = state[0] if isinstance(state, tuple) else state  # an LSTM's cell is not for others
        directions = 2 if self.recurrent.bidirectional else 1
        return torch.as_tensor(self.head(torch.cat(list(state[-directions:]), dim=1)))
