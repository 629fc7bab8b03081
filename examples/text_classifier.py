"""Tell what a text is about, with a model that stays compressed while it runs.

    cmpk pack MODEL_FOLDER -o minilm.cmpk
    python -m examples.text_classifier minilm.cmpk topics.cmpk "how many days until the end of the month?"

The topics are those of Python's standard library. The classifier is trained the first time, on what its
modules say of themselves, and kept in a ``.cmpk`` file of its own. Needs the package ``tokenizers``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import click
import torch

import cmpk.nn
from cmpk.torch import safe_open, save_file
from examples.embedding import Embedder

__all__ = ["TOPICS", "Guess", "TextClassifier", "docstrings", "main"]

TOPICS: Mapping[str, tuple[str, ...]] = {
    "concurrency": ("asyncio", "concurrent.futures", "multiprocessing", "queue", "threading"),
    "data formats": ("configparser", "csv", "email", "html", "json", "plistlib", "pickle", "xml.dom"),
    "dates and times": ("calendar", "datetime", "sched", "time", "zoneinfo"),
    "debugging": ("cProfile", "doctest", "logging", "pdb", "traceback", "unittest", "warnings"),
    "files": ("fileinput", "glob", "os", "pathlib", "shutil", "tarfile", "tempfile", "zipfile"),
    "networking": ("ftplib", "http", "imaplib", "ipaddress", "smtplib", "socket", "ssl", "urllib"),
    "numbers": ("cmath", "decimal", "fractions", "math", "random", "statistics"),
    "text": ("difflib", "gettext", "locale", "re", "string", "textwrap", "unicodedata"),
}
"""Topics, and the modules whose documentation is about them."""

_BORROWED = ("abc", "collections", "collections.abc", "contextlib", "enum", "functools", "types", "typing")
_MIN_WORDS = 4
_HELD_OUT = 5
_WEIGHT_DECAY = 1e-3


class Guess(NamedTuple):
    """What a text is about, and how likely that is."""

    topic: str
    probability: float


class TextClassifier:
    """A linear classifier of sentences' vectors.

    Parameters
    ----------
    embedder : Embedder
    topics : list of str
    weight, bias : tensors, shapes (topics, width) and (topics,)
    """

    def __init__(
        self, embedder: Embedder, topics: list[str], weight: torch.Tensor, bias: torch.Tensor
    ) -> None:
        self._embedder = embedder
        self._topics = topics
        self._weight = weight
        self._bias = bias

    @classmethod
    def train(cls, embedder: Embedder, examples: Mapping[str, Sequence[str]]) -> TextClassifier:
        """Fit logistic regression to examples of each topic."""
        vectors = embedder.embed([text for texts in examples.values() for text in texts]).clone()
        sizes = torch.tensor([len(texts) for texts in examples.values()])
        labels = torch.arange(len(examples)).repeat_interleave(sizes)
        balance = 1 / sizes.float()
        weight = torch.zeros(len(examples), vectors.shape[1], requires_grad=True)
        bias = torch.zeros(len(examples), requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            logits = vectors @ weight.T + bias
            value = torch.nn.functional.cross_entropy(logits, labels, balance)
            value = value + _WEIGHT_DECAY * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        return cls(embedder, list(examples), weight.detach(), bias.detach())

    @classmethod
    def load(cls, embedder: Embedder, path: str | Path) -> TextClassifier:
        """Load what `save` wrote."""
        with safe_open(path) as file:
            topics = (file.metadata() or {})["topics"].split("\n")
            return cls(embedder, topics, file.get_tensor("weight"), file.get_tensor("bias"))

    def save(self, path: str | Path) -> None:
        """Write a ``.cmpk`` file."""
        save_file({"weight": self._weight, "bias": self._bias}, path, {"topics": "\n".join(self._topics)})

    def classify(self, texts: list[str]) -> list[Guess]:
        """The likeliest topic of each text."""
        logits = self._embedder.embed(texts) @ self._weight.T + self._bias
        best = logits.softmax(1).max(1)
        return [
            Guess(self._topics[topic], probability)
            for topic, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def accuracy(self, examples: Mapping[str, Sequence[str]]) -> float:
        """Share of the examples that are recognized, each topic weighing the same."""
        shares = [
            sum(guess.topic == topic for guess in self.classify(list(texts))) / len(texts)
            for topic, texts in examples.items()
        ]
        return sum(shares) / len(shares)


def docstrings(limit: int = 150) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """First sentences of the standard library's documentation by topics, for training and held out.

    Parameters
    ----------
    limit : int
        At most so many of each topic.
    """
    found = {topic: set(_sentences(modules)) for topic, modules in TOPICS.items()}
    training: dict[str, list[str]] = {}
    held_out: dict[str, list[str]] = {}
    for topic, texts in found.items():
        others = set().union(*(found[other] for other in found if other != topic))
        own = sorted(texts - others)
        # Spread over the alphabet, as methods of one class begin alike.
        chosen = own[:: max(1, len(own) // limit)][:limit]
        held_out[topic] = chosen[::_HELD_OUT]
        training[topic] = [text for text in chosen if text not in held_out[topic]]
    return training, held_out


def _sentences(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        module = importlib.import_module(name)
        for thing in _documented(module):
            paragraph = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
            text = paragraph.partition(". ")[0].removesuffix(".")
            if len(text.split()) >= _MIN_WORDS:
                yield text


def _documented(module: ModuleType) -> Iterator[object]:
    """What a module and its classes define."""
    for name, thing in vars(module).items():
        if name.startswith("_") or not callable(thing) or getattr(thing, "__module__", "") in _BORROWED:
            continue
        yield thing
        if inspect.isclass(thing):
            yield from (value for key, value in vars(thing).items() if callable(value) and key[0] != "_")


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("classifier", type=click.Path(dir_okay=False))
@click.argument("texts", nargs=-1, required=True)
@click.option("--resident", type=click.Choice(cmpk.nn.RESIDENT), default="packed", show_default=True)
def main(model: str, classifier: str, texts: tuple[str, ...], resident: str) -> None:
    """Tell what each of TEXTS is about; CLASSIFIER is trained and written if it is not there."""
    embedder = Embedder(model, resident)
    if Path(classifier).exists():
        found = TextClassifier.load(embedder, classifier)
    else:
        training, held_out = docstrings()
        found = TextClassifier.train(embedder, training)
        found.save(classifier)
        n_texts = sum(map(len, training.values()))
        click.echo(f"trained on {n_texts} sentences, right for {found.accuracy(held_out):.0%} of others")
    for text, guess in zip(texts, found.classify(list(texts)), strict=True):
        click.echo(f"{guess.probability:4.0%}  {guess.topic:<16}{text}")


if __name__ == "__main__":
    main()
