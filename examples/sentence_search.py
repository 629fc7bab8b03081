"""Search sentences by meaning, with a model that stays compressed while it runs.

    cmpk pack MODEL_FOLDER -o minilm.cmpk
    python -m examples.sentence_search minilm.cmpk sentences.txt "how do I read a file?"

The folder is that of all-MiniLM-L6-v2, whose tokenizer travels in the archive. Needs the package
``tokenizers``.
"""

from __future__ import annotations

from typing import NamedTuple, TextIO

import click
import torch

import cmpk.nn
from examples.embedding import Embedder

__all__ = ["Hit", "SentenceSearch", "main"]


class Hit(NamedTuple):
    """A sentence that was found, and the cosine between its meaning and the query's."""

    sentence: str
    cosine: float


class SentenceSearch:
    """Sentences that are searched by meaning.

    Parameters
    ----------
    embedder : Embedder
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._sentences: list[str] = []
        self._vectors = torch.empty(0, 0)

    def add(self, sentences: list[str]) -> None:
        """Make sentences searchable."""
        vectors = self._embedder.embed(sentences)
        self._vectors = torch.cat((self._vectors, vectors)) if self._sentences else vectors
        self._sentences += sentences

    def search(self, query: str, n: int = 5) -> list[Hit]:
        """The sentences nearest to the query, the nearest first."""
        cosines = self._vectors @ self._embedder.embed([query])[0]
        best = cosines.topk(min(n, len(self._sentences)))
        return [Hit(self._sentences[at], float(cosines[at])) for at in best.indices.tolist()]


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("sentences", type=click.File(encoding="utf-8"))
@click.argument("query")
@click.option("--resident", type=click.Choice(cmpk.nn.RESIDENT), default="packed", show_default=True)
@click.option("-n", type=click.IntRange(1), default=5, show_default=True, help="How many to show.")
def main(model: str, sentences: TextIO, query: str, resident: str, n: int) -> None:
    """Show the lines of SENTENCES that mean about what QUERY does."""
    search = SentenceSearch(Embedder(model, resident))
    search.add([line.strip() for line in sentences if line.strip()])
    for hit in search.search(query, n):
        click.echo(f"{hit.cosine:.3f}  {hit.sentence}")


if __name__ == "__main__":
    main()
