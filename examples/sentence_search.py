"""Search sentences by meaning, with a model that stays compressed while it runs.

    cmpk pack MODEL_FOLDER -o minilm.cmpk
    python -m examples.sentence_search minilm.cmpk sentences.txt "how do I read a file?"

The folder is that of all-MiniLM-L6-v2, whose tokenizer travels in the archive. Needs the package
``tokenizers``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TextIO

import click
import torch
from tokenizers import Tokenizer

import cmpk
import cmpk.nn
from cmpk.torch import load_model
from tools.bench.minilm import MiniLM

__all__ = ["Hit", "SentenceSearch", "main"]

_BATCH = 32
_MAX_TOKENS = 128


class Hit(NamedTuple):
    """A sentence that was found, and the cosine between its meaning and the query's."""

    sentence: str
    cosine: float


class SentenceSearch:
    """Sentences that are searched by meaning.

    Parameters
    ----------
    path : path
        An archive of the model's folder.
    resident : str
        What the weights are in memory; see `cmpk.torch.load_model`.
    activations : str
        With ``quantized``, ``int8`` multiplies integers.
    """

    def __init__(self, path: str | Path, resident: str = "packed", activations: str = "float") -> None:
        # The pooler is not used, so that the archive has more tensors than the model.
        self.model = load_model(MiniLM, path, strict=False, resident=resident, activations=activations).eval()
        self._tokenizer = _tokenizer(path)
        self._sentences: list[str] = []
        self._vectors = torch.empty(0, 0)

    def add(self, sentences: list[str]) -> None:
        """Make sentences searchable."""
        vectors = self.embed(sentences)
        self._vectors = torch.cat((self._vectors, vectors)) if self._sentences else vectors
        self._sentences += sentences

    def search(self, query: str, n: int = 5) -> list[Hit]:
        """The sentences nearest to the query, the nearest first."""
        cosines = self._vectors @ self.embed([query])[0]
        best = cosines.topk(min(n, len(self._sentences)))
        return [Hit(self._sentences[at], float(cosines[at])) for at in best.indices.tolist()]

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


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("sentences", type=click.File(encoding="utf-8"))
@click.argument("query")
@click.option("--resident", type=click.Choice(cmpk.nn.RESIDENT), default="packed", show_default=True)
@click.option("-n", type=click.IntRange(1), default=5, show_default=True, help="How many to show.")
def main(model: str, sentences: TextIO, query: str, resident: str, n: int) -> None:
    """Show the lines of SENTENCES that mean about what QUERY does."""
    search = SentenceSearch(model, resident)
    search.add([line.strip() for line in sentences if line.strip()])
    for hit in search.search(query, n):
        click.echo(f"{hit.cosine:.3f}  {hit.sentence}")


if __name__ == "__main__":
    main()
