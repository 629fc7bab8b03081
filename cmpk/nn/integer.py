"""Linear layers that multiply integers: 8-bit codes of the weight by 8-bit codes of each token.

Weights with scales of groups within a row are not among them. For these torch has a product of 4-bit codes by
bfloat16 numbers; measured on 2 cores of an AMD EPYC with torch 2.13.0 (groups of 32, layers of 384 and 1536),
it takes 1.04 to 1.16 times as long as a dense float32 product of 4,096 tokens, and 0.57 to 0.77 times for 16,
where `torch._int_mm` takes 0.21 to 0.23 and 0.20 to 0.42. It rounds inputs and scales to bfloat16; not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch

from cmpk.dtypes import to_torch
from cmpk.encodings import Affine
from cmpk.encodings.base import Branch, Decoder
from cmpk.load import to_device
from cmpk.nn.compressed import Compressed
from cmpk.nn.layers import CompressedLayer
from cmpk.nn.weights import WeightTable

__all__ = ["IntegerLinear", "IntegerWeight", "IntegerWeights", "integer_weight"]

_MAX_CODE: Final = 127
_MAX_BYTE: Final = 255
_SMALLEST_STEP: Final = float(np.finfo(np.float32).tiny)
_MAX_IN_FEATURES: Final = 1 << 16
"""So many products of bytes add up to less than 2**31."""

_BLOCK_ROWS: Final = 512
"""Tokens that are multiplied at a time, so that their sums are still in cache when they are scaled."""


_Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Of a float32 block, shape (rows, in), and the weight; shape (rows, out)."""


class IntegerWeight(NamedTuple):
    """A weight as ``(codes - zero_point) * scale``.

    Attributes
    ----------
    codes : int8 tensor, shape (out, in)
    scale : float32 tensor, shape (out,) or (1,)
    zero_point : float32 tensor, shape (out,) or (1,), or None
        Whole numbers; None where all are 0.
    totals : float32 tensor, shape (out,)
        The sum of each row of the weight.
    dtype : torch.dtype
        Of the weight that they stand for.
    input_range : (float, float), optional
        Lowest and highest level of what the weight is multiplied by; those of each token by default.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    totals: torch.Tensor
    dtype: torch.dtype
    input_range: tuple[float, float] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales, zero points and sums."""
        return sum(part.nbytes for part in self[:4] if part is not None)

    def to(self, device: torch.device) -> IntegerWeight:
        """The same on another device."""
        zero_point = None if self.zero_point is None else to_device(self.zero_point, device)
        codes, scale, totals = (to_device(part, device) for part in (self.codes, self.scale, self.totals))
        return self._replace(codes=codes, scale=scale, zero_point=zero_point, totals=totals)

    def dense(self) -> torch.Tensor:
        """The weight, to the bit that spec/encodings/affine.md says."""
        codes = self.codes.float()
        if self.zero_point is not None:
            codes -= self.zero_point[:, None]
        return (codes * self.scale[:, None]).to(self.dtype)

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """``x @ weight.T + bias`` for ``x`` rounded to 256 levels of a range: its own for each row, or one.

        Parameters
        ----------
        x : floating-point tensor, shape (tokens, in)
        bias : tensor, shape (out,), optional

        Returns
        -------
        tensor of the dtype of ``x``, shape (tokens, out)
        """
        constant = torch.zeros_like(self.totals) if bias is None else bias.float()
        product = self._within_each_token(constant) if self.input_range is None else self._within(constant)
        out = x.new_empty((len(x), len(self.codes)))
        for start in range(0, len(x), _BLOCK_ROWS):
            out[start : start + _BLOCK_ROWS] = product(x[start : start + _BLOCK_ROWS].float())
        return out

    # With x ≈ lowest + step · codes, the sum over i of x_i (c_i − z) scale is
    # step · scale · (codes · c − z Σ codes_i) + lowest · scale · Σ (c_i − z).

    def _within_each_token(self, constant: torch.Tensor) -> _Product:
        """The product for levels from the lowest to the highest number of each row."""
        shift = torch.stack((self.totals, constant))

        def product(x: torch.Tensor) -> torch.Tensor:
            lowest = x.amin(1, keepdim=True)
            step = x.amax(1, keepdim=True).sub_(lowest).div_(_MAX_BYTE).clamp_min_(_SMALLEST_STEP)
            sums = self._sums(x.sub(lowest).div_(step).round_().to(torch.uint8))
            sums.mul_(step).mul_(self.scale)
            return sums.addmm_(torch.cat((lowest, torch.ones_like(lowest)), 1), shift)

        return product

    def _within(self, constant: torch.Tensor) -> _Product:
        """The product for levels of one range; what lies outside is clipped."""
        lowest, highest = self.input_range or (0.0, 0.0)
        step = max((highest - lowest) / _MAX_BYTE, _SMALLEST_STEP)
        scale, shift = self.scale * step, torch.add(constant, self.totals, alpha=lowest)

        def product(x: torch.Tensor) -> torch.Tensor:
            codes = x.sub(lowest).div_(step).round_().clamp_(0, _MAX_BYTE).to(torch.uint8)
            return torch.addcmul(shift, self._sums(codes), scale)

        return product

    def _sums(self, codes: torch.Tensor) -> torch.Tensor:
        """``codes @ (self.codes - zero_point).T``, shape (rows, out)."""
        sums = torch._int_mm(codes, self.codes.t()).float()
        if self.zero_point is not None:
            sums -= codes.sum(1, keepdim=True, dtype=torch.float32) * self.zero_point
        return sums


def integer_weight(compressed: Compressed) -> IntegerWeight | None:
    """The codes of a weight; None unless they are bytes with at most one scale for each row."""
    root, spec = compressed.root, compressed.spec
    if not isinstance(root, Branch) or not isinstance(root.encoding, Affine) or len(spec.shape) != 2:
        return None
    params = root.node.params
    if (
        params["exceptions"]
        or params["group_size"]
        or params["axis"] == 1
        or spec.shape[1] > _MAX_IN_FEATURES
    ):
        return None
    compressed.decode_into(np.empty(spec.nbytes, np.uint8), torch.get_num_threads())  # checks every rule
    decoder = Decoder(lambda leaf: compressed.streams[leaf.offset])
    job = root.encoding.float_job(root, 0, spec.numel, np.empty(0, np.uint8), decoder)
    qdata = torch.from_numpy(decoder.decode(root.parts["qdata"]).copy())
    zero = np.zeros(1) if job.zero_point is None else np.frombuffer(job.zero_point, "<i4").astype(np.float64)
    # Codes as they are where they fit; else moved so that all bytes do, and the zero points with them.
    moved = job.offset if job.offset >= -128 and int(qdata.max()) + job.offset <= _MAX_CODE else -128
    zero = zero + (moved - job.offset)
    if np.abs(zero).max() > 1 << 15:
        return None  # its products would lose bits of float32
    codes = qdata.to(torch.int16).add_(moved).to(torch.int8).view(spec.shape)
    zero_point = torch.from_numpy(zero.astype(np.float32)) if zero.any() else None
    scale = torch.from_numpy(np.array(np.frombuffer(job.scale, "<f4")))
    totals = codes.sum(1, dtype=torch.float64)
    if zero_point is not None:
        totals -= spec.shape[1] * zero_point
    return IntegerWeight(codes, scale, zero_point, (totals * scale).float(), to_torch(spec.dtype))


class IntegerWeights(WeightTable[IntegerWeight]):
    """Weights as codes that torch dequantizes where they are, or multiplies; in place of `Weights`.

    Parameters
    ----------
    stored : mapping of str to IntegerWeight
    device : torch.device
        Where they are.
    """

    def __init__(self, stored: Mapping[str, IntegerWeight], device: torch.device) -> None:
        super().__init__({name: weight.to(device) for name, weight in stored.items()}, device, device)

    def get(self, name: str) -> torch.Tensor:
        """A weight, dequantized."""
        return self.stored(name).dense()

    def copy(self, name: str) -> torch.Tensor:
        """The same."""
        return self.get(name)

    def dtype(self, name: str) -> torch.dtype:
        """The type of a weight."""
        return self.stored(name).dtype


class IntegerLinear(CompressedLayer):
    """A linear layer that rounds its input to 8 bits and multiplies integers.

    Its outputs are not those of the dense layer: each number of a token is off by up to a 510th of the range
    that the numbers of the token span. Within a range from calibration it is a 510th of that range, and
    numbers outside are clipped.
    """

    bias: torch.Tensor | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply; see ``torch.nn.Linear``."""
        self._refuse_gradients(input)
        weight: IntegerWeight = self._compressed_weights.stored(self._compressed_names["weight"])
        y = weight.linear(input.reshape(-1, input.shape[-1]), self.bias)
        return y.view(*input.shape[:-1], y.shape[-1])
