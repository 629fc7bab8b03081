"""Hypothesis profiles. HYPOTHESIS_PROFILE chooses one: `ci` (the default), `dev` or `thorough`."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples everywhere and every time: a red run means a change, not luck.
settings.register_profile(
    "ci", max_examples=60, derandomize=True, database=None, deadline=None, print_blob=True
)
settings.register_profile("dev", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
