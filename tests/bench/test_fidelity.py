from __future__ import annotations

import importlib.util
from xml.etree import ElementTree

import pytest

from tools.bench import fidelity, minilm, models
from tools.bench.fidelity import Bar, Case, best, table, with_table
from tools.bench.fidelity_plot import Point, svg

CASES = [
    Case("cmpk", "6 MB", 5_990_000, 1.0, 0.9, 0.8, 0.7),
    Case("cmpk", "8 MB", 7_990_000, 1.0, 0.99, 0.8, 0.7),
    Case("GGUF", "Q4_0", 12_000_000, 1.0, 0.95, 0.8, 0.7),
]


def test_sentences_are_enough_and_none_is_used_for_both() -> None:
    evaluation, calibration = minilm.sentences("evaluation"), minilm.sentences("calibration")
    assert len(evaluation) >= 300
    assert len(calibration) == 256
    assert len({*evaluation, *calibration}) == len(evaluation) + len(calibration)
    assert all(len(sentence.split()) > 4 for sentence in evaluation + calibration)


def test_a_bar_is_held_against_the_best_case_that_is_small_enough() -> None:
    assert best(CASES, Bar("cmpk", 8_000_000, 0.9)) == 0.99
    assert best(CASES, Bar("cmpk", 7_000_000, 0.9)) == 0.9
    assert best(CASES, Bar("cmpk", 5_000_000, 0.9)) is None


def test_the_table_has_a_row_for_each_case() -> None:
    assert [row[:4] for row in table(CASES).rows][-1] == ["GGUF", "Q4_0", "12.00", "0.950000"]


def test_the_readme_keeps_what_is_around_the_table() -> None:
    once = with_table(f"# Title\n\n{fidelity.BEGIN}\n{fidelity.END}\nMore.\n", CASES)
    changed = with_table(once, CASES[:1])
    assert changed.startswith(f"# Title\n\n{fidelity.BEGIN}\n")
    assert changed.endswith(f"{fidelity.END}\nMore.\n")
    assert "GGUF" in once
    assert "GGUF" not in changed
    with pytest.raises(ValueError, match="the README needs"):
        with_table("# Title\n", CASES)


def test_the_picture_is_an_image_with_every_point_and_curve() -> None:
    families = {"one": [Point(6, 0.9), Point(8, 0.99)], "other": [Point(12, 0.95)]}
    root = ElementTree.fromstring(svg(families, ["one"]))
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("polyline") == 1
    assert names.count("circle") == 3 + 2  # a point each, and one for each family beside its name
    texts = {element.text for element in root.iter()}
    assert {"one", "other", "0.1", "0.01"} <= texts


@pytest.mark.slow
@pytest.mark.skipif(
    models.reference() is None or importlib.util.find_spec("tokenizers") is None,
    reason="needs the reference model and tokenizers",
)
def test_the_model_knows_which_sentences_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        "A man is playing a guitar.",
        "A person plays the guitar.",
        "The stock market fell sharply today.",
    ]
    monkeypatch.setattr(minilm, "sentences", lambda name: texts)
    minilm.token_ids.cache_clear()
    found = minilm.embeddings(minilm.original(), minilm.token_ids("evaluation"))
    minilm.token_ids.cache_clear()
    near, far = float(found[0] @ found[1]), float(found[0] @ found[2])
    # As its published implementation gives them.
    assert near == pytest.approx(0.852, abs=0.002)
    assert far == pytest.approx(-0.054, abs=0.002)
