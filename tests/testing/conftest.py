"""Faults are planted here: the first example that shows one is as good as the smallest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings


@pytest.fixture
def without_shrinking() -> Iterator[None]:
    """Report the first failing example as it was drawn."""
    active = settings.get_current_profile_name()
    settings.register_profile("without shrinking", settings(), phases=[Phase.generate])
    settings.load_profile("without shrinking")
    yield
    settings.load_profile(active)
