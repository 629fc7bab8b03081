"""Packed sizes are pinned: wall time never fails a build, a byte more does."""

from __future__ import annotations

import os

import pytest

from cmpk import kernels
from tools.bench import models, sizes


@pytest.fixture
def reference_model() -> None:
    """Skips where a pack of the reference model is impossible or takes minutes, but never in CI."""
    missing = ""
    if models.reference() is None:
        missing = f"{models.PACKAGE} is not installed; `make test` installs it"
    elif kernels.active_name() != "native":
        missing = "packing 90 MB takes minutes with the reference kernels"
    if missing and os.environ.get("CMPK_REQUIRE_MODEL"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def test_the_table_covers_every_recipe_and_dtype() -> None:
    assert {recipe: list(row) for recipe, row in sizes.reviewed().items()} == {
        recipe: list(models.DTYPES) for recipe in sizes.RECIPES
    }


@pytest.mark.slow
@pytest.mark.usefixtures("reference_model")
@pytest.mark.parametrize("recipe", sizes.RECIPES)
def test_the_reference_model_packs_to_the_reviewed_sizes(recipe: str) -> None:
    assert sizes.measure(recipe) == sizes.reviewed()[recipe], (
        "if the change is meant, run `python -m tools.bench --update-sizes` and review the table"
    )
