"""What the sentence model is trained with."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from tools.bench import models
from tools.repro import sentence
from tools.repro.sentence import documentation

SOURCE = '''"""A module that holds what is needed for this test. It has two sentences, and both are found!

Returns
-------
x : float
    Not a sentence at all.
"""

def function():
    """A module that holds what is needed for this test.

    Too short. This one has a ``literal`` in it and is left out. Twice the same is found only once.
    """
'''


def test_plain_sentences_of_docstrings_are_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "documented").mkdir()
    (tmp_path / "documented" / "__init__.py").write_text(SOURCE)
    (tmp_path / "documented" / "broken.py").write_text("def")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert documentation(("documented", "not_installed_at_all")) == [
        "A module that holds what is needed for this test.",
        "It has two sentences, and both are found!",
        "Twice the same is found only once.",
    ]


@pytest.mark.skipif(
    models.reference() is None or importlib.util.find_spec("tokenizers") is None,
    reason="needs the reference model and tokenizers",
)
def test_training_brings_a_small_file_nearer_to_the_original(tmp_path: Path) -> None:
    plan = sentence.Plan(calibrated=48, seconds=math.inf, max_steps=12, scored=60)
    found = sentence.run(0, tmp_path, plan)
    assert found["steps"] == 12
    assert max(found["calibrated_nbytes"], found["trained_nbytes"]) <= plan.nbytes
    assert found["calibrated_mean"] > 0.65
    assert found["trained_mean"] > found["calibrated_mean"] + 0.003
    assert found["trained_documentation_mean"] > found["calibrated_documentation_mean"] + 0.015
