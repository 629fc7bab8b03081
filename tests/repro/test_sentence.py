"""What the sentence model is trained with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
    assert documentation(["documented", "not_installed_at_all"]) == [
        "A module that holds what is needed for this test.",
        "It has two sentences, and both are found!",
        "Twice the same is found only once.",
    ]
