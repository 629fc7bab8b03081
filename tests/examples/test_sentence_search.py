"""The search app finds with a packed model what it finds with the model that was packed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cmpk.nn import CompressedLayer
from tools.bench import models

pytest.importorskip("tokenizers")
if models.reference() is None:
    pytest.skip("the reference model is not installed", allow_module_level=True)

from examples.embedding import Embedder
from examples.sentence_search import SentenceSearch, main
from tools.bench.minilm import sentences

QUERIES = ["a musical instrument", "How do I read a file?", "the weather in winter"]


def of(archive: Path, resident: str) -> SentenceSearch:
    search = SentenceSearch(Embedder(archive, resident))
    search.add(sentences("evaluation")[:64])
    return search


@pytest.mark.slow
def test_a_packed_model_finds_what_the_unpacked_one_does_with_the_same_scores(archive: Path) -> None:
    dense, packed = of(archive, "dense"), of(archive, "packed")
    assert any(isinstance(module, CompressedLayer) for module in packed._embedder.model.modules())
    assert torch.equal(dense._vectors, packed._vectors)
    assert [packed.search(query) for query in QUERIES] == [dense.search(query) for query in QUERIES]


@pytest.mark.slow
def test_the_command_shows_the_nearest_sentences(archive: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("A man plays the guitar.\n\nStocks fell sharply today.\nIt snows in January.\n")
    done = CliRunner().invoke(main, [str(archive), str(lines), "music", "-n", "2"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].endswith("A man plays the guitar.")
    assert len(done.output.splitlines()) == 2
