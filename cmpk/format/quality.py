"""What a lossy tensor has kept of its source (spec/container.md, section 3.1.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

__all__ = ["MOST", "Quality", "QualitySummary", "decibels", "summary_of"]

MOST: Final = (1 << 63) - 1
"""The largest figure; it stands for infinity, too."""


class Quality(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a lossy tensor has kept of its source. Integers: canonical JSON has no others."""

    error_ppb: int = 0
    cosine_ppb: int = 0
    zeros: int = 0
    pruned_millibits: int = 0
    quantized_millibits: int = 0
    coded_millibits: int = 0

    @property
    def error(self) -> float:
        """Relative error √Σ(y−x)² / √Σx²."""
        return math.inf if self.error_ppb == MOST else self.error_ppb / 1e9

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise in decibels."""
        return decibels(self.error)

    @property
    def cosine(self) -> float:
        """Of the angle between source and result."""
        return 1 - self.cosine_ppb / 1e9

    @property
    def bits(self) -> dict[str, float]:
        """Bits an element after each stage that there was."""
        stages = ("pruned", self.pruned_millibits), ("quantized", self.quantized_millibits)
        return {name: bits / 1000 for name, bits in (*stages, ("coded", self.coded_millibits)) if bits}

    def to_json(self) -> dict[str, Any]:
        """As the command line gives it; null for what is infinite."""
        return {
            "error": finite(self.error),
            "sqnr_db": finite(self.sqnr),
            "cosine": self.cosine,
            "zeros": self.zeros,
            "bits_per_element": self.bits,
        }


@dataclass(frozen=True, slots=True)
class QualitySummary:
    """What the lossy tensors of a model have kept.

    Attributes
    ----------
    n_tensors, numel : int
        The lossy ones, and their elements.
    error : float
        Root mean square of the relative errors, each tensor weighed by its elements.
    largest_error : float
    largest_error_in : str
        The tensor that has it.
    zeros : int
    bits : float
        Coded bits an element.
    """

    n_tensors: int
    numel: int
    error: float
    largest_error: float
    largest_error_in: str
    zeros: int
    bits: float

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise in decibels."""
        return decibels(self.error)

    def to_json(self) -> dict[str, Any]:
        """As the command line gives it; null for what is infinite."""
        return {
            "n_tensors": self.n_tensors,
            "numel": self.numel,
            "error": finite(self.error),
            "sqnr_db": finite(self.sqnr),
            "largest_error": finite(self.largest_error),
            "largest_error_in": self.largest_error_in,
            "zeros": self.zeros,
            "bits_per_element": self.bits,
        }


def summary_of(tensors: Iterable[tuple[str, int, Quality | None]]) -> QualitySummary | None:
    """The figures of a whole model; None if it is lossless.

    Parameters
    ----------
    tensors : iterable of (str, int, Quality or None)
        Name, elements and figures of each tensor.
    """
    lossy = [(name, numel, quality) for name, numel, quality in tensors if quality is not None]
    if not lossy:
        return None
    total = sum(numel for _, numel, _ in lossy)
    worst, _, most = max(lossy, key=lambda item: item[2].error)
    shares = [(numel / total if total else 0.0, quality) for _, numel, quality in lossy]
    return QualitySummary(
        n_tensors=len(lossy),
        numel=total,
        error=math.sqrt(sum(share * quality.error**2 for share, quality in shares if quality.error)),
        largest_error=most.error,
        largest_error_in=worst,
        zeros=sum(quality.zeros for _, quality in shares),
        bits=sum(share * quality.coded_millibits / 1000 for share, quality in shares),
    )


def decibels(error: float) -> float:
    """The signal-to-noise ratio of a relative error."""
    if not error:
        return math.inf
    return -math.inf if math.isinf(error) else -20 * math.log10(error)


def finite(value: float) -> float | None:
    """A figure as JSON can hold it; None for one that is not finite."""
    return value if math.isfinite(value) else None
