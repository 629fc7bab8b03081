"""Small models with every kind of layer that stays compressed, and files of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import cmpk
from cmpk.recipe import PassUse, Recipe, Rule

RECIPES = {
    "lossless": (),
    "int8": (PassUse("round_int", {"bits": 8}),),
    "int4": (PassUse("round_int", {"bits": 4, "per": "group", "group_size": 32}),),
    "shared": (PassUse("share", {"bits": 4}),),
}
CODES = tuple(name for name in RECIPES if name != "lossless")


class Text(nn.Module):
    """Embeddings, linear layers and attention; the output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(700, 64, padding_idx=0)
        self.first = nn.Linear(64, 256)
        self.second = nn.Linear(256, 64, bias=False)
        self.norm = nn.LayerNorm(64)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.head = nn.Linear(64, 700, bias=False)
        self.head.weight = self.embed.weight
        self.shift = nn.Parameter(torch.randn(64))
        self.register_buffer("frequencies", torch.linspace(0, 1, 64), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.frequencies.to(self.shift.dtype) + self.shift
        x = self.norm(x + self.second(self.first(x).relu()))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x)


class Image(nn.Module):
    """Convolutions of one and two dimensions, and a norm with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(8, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.line = nn.Conv1d(64, 80, 3, stride=2, padding_mode="circular", padding=1)
        self.up = nn.ConvTranspose1d(80, 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.flat(x)).relu().flatten(2)
        return self.up(self.line(x))


def seeded(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model with some weights, ready to run."""
    torch.manual_seed(7)
    return kind().to(dtype).eval()


def inputs(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> Tensor:
    """Something to run it on."""
    torch.manual_seed(8)
    return torch.randint(0, 700, (3, 17)) if kind is Text else torch.randn(2, 8, 9, 9, dtype=dtype)


def packed(folder: Path, model: nn.Module, recipe: str = "lossless") -> Path:
    """A file of the model."""
    codecs = ("raw", "bitpack", "huffman", "zstd:3")
    rules = (Rule(RECIPES[recipe], min_rank=2),) if RECIPES[recipe] else ()
    path = folder / f"{recipe}.cmpk"
    chosen = Recipe(recipe, "", codecs, 0.01, rules) if rules else recipe
    cmpk.torch.save_model(model, path, recipe=chosen)
    return path
