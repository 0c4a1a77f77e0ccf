"""Small PyTorch models of real kinds, seeded and untrained: an image classifier and a text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from onnxtool.models.torch.files import quiet


class BasicBlock(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions with a shortcut (He et al. 2016, "Deep Residual Learning", figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):  # type: ignore[misc]
    """Three stages of basic blocks, for images of 32x32 (He et al. 2016, section 4.2)."""

    def __init__(self, classes: int = 10, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential(
            *(
                BasicBlock(
                    widths[stage] if block == 0 else widths[stage + 1],
                    widths[stage + 1],
                    2 if stage and not block else 1,
                )
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)
        self.example_inputs = {"image": torch.zeros(2, 3, 32, 32)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image, float32 [batch, 3, 32, 32], to logits [batch, classes] and features [batch, 4 * width]."""
        features = self.stages(self.stem(image)).mean((2, 3))
        return {"logits": self.classifier(features), "features": features}


class Transformer(nn.Module):  # type: ignore[misc]
    """A transformer encoder over tokens (Vaswani et al. 2017), with learned positions and masked mean pooling."""

    def __init__(self, vocabulary: int = 1000, width: int = 64, layers: int = 2, longest: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(longest, width) * 0.1)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.classifier = nn.Linear(width, 4)
        self.example_inputs = {
            "tokens": torch.ones(2, 16, dtype=torch.int64),
            "mask": torch.ones(2, 16, dtype=torch.bool),
        }

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Encode texts.

        Args:
            tokens: int64 [batch, sequence], each below the vocabulary's size.
            mask: bool [batch, sequence], True for tokens and False for padding.

        Returns:
            `logits` [batch, 4] and `pooled` [batch, width], float32.
        """
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        x = self.encoder(x, src_key_padding_mask=~mask)
        weights = mask.unsqueeze(-1).to(x.dtype)
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1)
        return {"logits": self.classifier(pooled), "pooled": pooled}


def resnet() -> nn.Module:
    """A ResNet-20 of 0.27 million parameters, whose batch norms have seen images."""
    torch.manual_seed(0)
    model = ResNet()
    with torch.no_grad():
        for _ in range(4):  # in training mode: it moves the running statistics off 0 and 1
            model(torch.randn(16, 3, 32, 32) * 1.5 + 0.3)
    return model.eval()


def transformer() -> nn.Module:
    """A text encoder of 0.17 million parameters, for sequences of up to 128 tokens."""
    torch.manual_seed(0)
    return Transformer().eval()


def save(folder: Path) -> list[Path]:
    """Write `resnet.pt2` and `transformer.pt2`, with dynamic batch and sequence, and return their paths."""
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=128)
    written = []
    for model, shapes in (
        (resnet(), {"image": {0: batch}}),
        (transformer(), {"tokens": {0: batch, 1: sequence}, "mask": {0: batch, 1: sequence}}),
    ):
        path = folder / f"{type(model).__name__.lower()}.pt2"
        with quiet():
            program = torch.export.export(model, (), model.example_inputs, dynamic_shapes=shapes)
            torch.export.save(program, path)
        written.append(path)
    return written
