from __future__ import annotations

from pathlib import Path

import pytest

import cmpk
from tools.bench import models


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model's folder, packed."""
    source = models.reference()
    if source is None:
        pytest.skip("the reference model is not installed")
    path = tmp_path_factory.mktemp("examples") / "minilm.cmpk"
    cmpk.pack(source.parent, path)
    return path
