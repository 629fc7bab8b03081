"""Passes: what a tensor becomes, decided at pack time only. Loading never imports this package."""

from cmpk.passes.base import Pass, Planned, Split, Statistics
from cmpk.passes.split_floats import SplitFloats

__all__ = ["Pass", "Planned", "Split", "SplitFloats", "Statistics"]
