"""Passes: what a tensor becomes, decided at pack time only. Loading never imports this package."""

from cmpk.passes.base import Pass, Planned, Split, Statistics
from cmpk.passes.cast import Cast
from cmpk.passes.factorize import Factorize
from cmpk.passes.fixed_width import Binarize, FixedPoint, NormalFloat, RoundInt, Ternarize
from cmpk.passes.merge_rows import MergeRows
from cmpk.passes.merge_tensors import MergeTensors
from cmpk.passes.prune import Prune
from cmpk.passes.quantize import Quantize
from cmpk.passes.share import Share
from cmpk.passes.split_floats import SplitFloats

__all__ = [
    "Binarize",
    "Cast",
    "Factorize",
    "FixedPoint",
    "MergeRows",
    "MergeTensors",
    "NormalFloat",
    "Pass",
    "Planned",
    "Prune",
    "Quantize",
    "RoundInt",
    "Share",
    "Split",
    "SplitFloats",
    "Statistics",
    "Ternarize",
]
