"""The classifier says with a packed model what it says with the model that was packed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cmpk.nn import CompressedLayer

pytest.importorskip("tokenizers")

from examples.embedding import Embedder
from examples.text_classifier import TOPICS, TextClassifier, docstrings, main

TEXTS = {
    "how many days until the end of the month?": "dates and times",
    "my two threads wait for each other forever": "concurrency",
    "connection refused by the server": "networking",
    "the median of a sample": "numbers",
    "remove a directory and everything in it": "files",
}


def test_examples_are_of_one_topic_each_and_none_is_held_out_and_trained_on() -> None:
    training, held_out = docstrings()
    assert list(training) == list(held_out) == list(TOPICS)
    texts = [text for found in (training, held_out) for texts in found.values() for text in texts]
    assert len(texts) == len(set(texts))
    assert all(len(training[topic]) >= 3 * len(held_out[topic]) >= 30 for topic in TOPICS)


@pytest.mark.slow
def test_a_packed_model_is_trained_to_and_says_what_the_unpacked_one_does(
    archive: Path, tmp_path: Path
) -> None:
    dense, packed = Embedder(archive, "dense"), Embedder(archive)
    assert any(isinstance(module, CompressedLayer) for module in packed.model.modules())
    training, held_out = docstrings(15)
    found = {}
    for name, embedder in (("dense", dense), ("packed", packed)):
        classifier = TextClassifier.train(embedder, training)
        classifier.save(tmp_path / name)
        found[name] = classifier.classify(list(TEXTS))
        assert TextClassifier.load(embedder, tmp_path / name).classify(list(TEXTS)) == found[name]
    assert (tmp_path / "dense").read_bytes() == (tmp_path / "packed").read_bytes()
    assert found["packed"] == found["dense"]
    assert classifier.accuracy(held_out) > 0.5  # one of eight would be chance


@pytest.mark.slow
def test_the_command_trains_once_and_names_topics(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = docstrings(16)
    monkeypatch.setattr("examples.text_classifier.docstrings", lambda: few)
    command = [str(archive), str(tmp_path / "topics.cmpk"), *TEXTS]
    first, again = (CliRunner().invoke(main, command) for _ in range(2))
    assert (first.exit_code, again.exit_code) == (0, 0), first.output
    assert first.output.startswith("trained on ")
    lines = again.output.splitlines()
    assert lines == first.output.splitlines()[1:]
    for line, (text, topic) in zip(lines, TEXTS.items(), strict=True):
        assert line.endswith(text)
        assert topic in line
