"""Sentences to vectors, by a model that stays compressed while it runs."""

from __future__ import annotations

from pathlib import Path

import click
import torch
from tokenizers import Tokenizer

import cmpk
from cmpk.torch import load_model
from tools.bench.minilm import MiniLM

__all__ = ["Embedder"]

_BATCH = 32
_MAX_TOKENS = 128


class Embedder:
    """all-MiniLM-L6-v2 and its tokenizer, from one archive of the model's folder.

    Parameters
    ----------
    path : path
    resident : str
        What the weights are in memory; see `cmpk.torch.load_model`.
    activations : str
        With ``quantized``, ``int8`` multiplies integers.
    """

    def __init__(self, path: str | Path, resident: str = "packed", activations: str = "float") -> None:
        # The pooler is not used, so that the archive has more tensors than the model.
        self.model = load_model(MiniLM, path, strict=False, resident=resident, activations=activations).eval()
        self._tokenizer = _tokenizer(path)

    @torch.inference_mode()
    def embed(self, sentences: list[str]) -> torch.Tensor:
        """Unit vectors of sentences, shape (sentences, width)."""
        found = []
        for start in range(0, len(sentences), _BATCH):
            encodings = self._tokenizer.encode_batch(sentences[start : start + _BATCH])
            ids = torch.tensor([encoding.ids for encoding in encodings])
            mask = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
            found.append(self.model(ids, mask))
        return torch.cat(found)


def _tokenizer(path: str | Path) -> Tokenizer:
    with cmpk.open(path) as archive:
        for file in archive.manifest.files:
            if Path(file.path).name == "tokenizer.json":
                text = b"".join(chunk.tobytes() for chunk in archive.file_chunks(file))
                tokenizer = Tokenizer.from_str(text.decode())
                tokenizer.enable_truncation(_MAX_TOKENS)
                tokenizer.enable_padding()
                return tokenizer
    raise click.ClickException(f"{path} has no tokenizer.json; pack the whole folder of the model")
