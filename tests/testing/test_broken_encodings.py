"""The kit finds what is wrong with an encoding: each is right but for one thing."""

from __future__ import annotations

import numpy as np
import pytest

from cmpk.dtypes import TensorSpec
from cmpk.encodings import Encoded, Encoding, Part
from cmpk.encodings.base import byte_range, check_params, int_param
from cmpk.errors import FormatError
from cmpk.testing import check_encoding, tensor_parts

pytestmark = pytest.mark.usefixtures("without_shrinking")

BYTES = tensor_parts(dtypes=["U8", "I8"])


class Nibbles(Encoding):
    """A part for the upper and one for the lower half of each byte; of bytes below a limit."""

    id = "nibbles"

    def part_specs(self, spec, params):
        check_params(params, ("limit",))
        int_param(params, "limit", 1, 16)
        if spec.dtype not in ("U8", "I8"):
            raise FormatError(f"{spec.dtype} elements are no bytes")
        plane = TensorSpec("U8", spec.shape)
        return {"lower": plane, "upper": plane}

    def encode(self, part):
        data, specs = part.data, self.part_specs(part.spec, {"limit": 16})
        limit = int((data >> 4).max()) + 1 if len(data) else 1
        return Encoded(
            {"limit": limit},
            {"lower": Part(specs["lower"], data & 15), "upper": Part(specs["upper"], data >> 4)},
        )

    def decode_range(self, stored, start, stop, out, decoder):
        lower = decoder.decode(stored.parts["lower"], start, stop)
        upper = decoder.decode(stored.parts["upper"], start, stop)
        if (upper >= stored.node.params["limit"]).any() or (lower > 15).any():
            raise self.corrupt("a half is out of range")
        out[:] = upper << 4 | lower


class ForgetsTheStart(Nibbles):
    def decode_range(self, stored, start, stop, out, decoder):
        super().decode_range(stored, 0, stop - start, out, decoder)


class PromisesAnotherOrder(Nibbles):
    def part_specs(self, spec, params):
        return dict(reversed(super().part_specs(spec, params).items()))


class PromisesAnotherShape(Nibbles):
    def part_specs(self, spec, params):
        specs = super().part_specs(spec, params)
        return {**specs, "upper": TensorSpec("U8", (spec.numel + 1,))}


class LosesABit(Nibbles):
    def decode_range(self, stored, start, stop, out, decoder):
        super().decode_range(stored, start, stop, out, decoder)
        out &= 0xFE


class RaisesKeyError(Nibbles):
    def part_specs(self, spec, params):
        params["limit"]
        return super().part_specs(spec, params)


class RaisesIndexError(Nibbles):
    def decode_range(self, stored, start, stop, out, decoder):
        table = np.arange(stored.node.params["limit"], dtype=np.uint8) << 4
        upper = decoder.decode(stored.parts["upper"], start, stop)
        out[:] = table[upper] | decoder.decode(stored.parts["lower"], start, stop)


class BelievesTheLimit(Nibbles):
    def part_specs(self, spec, params):
        if type(params.get("limit")) is int and not 1 <= params["limit"] <= 16:
            return {"lower": TensorSpec("U8", (params["limit"],))}
        return super().part_specs(spec, params)


class StoresFloats(Nibbles):
    def encode(self, part):
        return Encoded({"limit": 1.5}, super().encode(part).parts)


class TakesNothing(Nibbles):
    def encode(self, part):
        return None


def test_an_encoding_without_fault_passes() -> None:
    check_encoding(Nibbles(), Nibbles().encode, parts=BYTES)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ForgetsTheStart, "are not that slice"),
        (PromisesAnotherOrder, "part_specs promises .* but the parts are"),
        (PromisesAnotherShape, r"part 'upper': .* takes \d+ bytes of uint8"),
        (LosesABit, "comes back changed, stored as nibbles"),
        (RaisesKeyError, "KeyError instead of FormatError"),
        (RaisesIndexError, "IndexError instead of CorruptStreamError"),
        (BelievesTheLimit, "which no tensor can be|no whole bytes or too many"),
        (StoresFloats, "the parameter 'limit' is 1.5"),
        (TakesNothing, "took no tensor that was tried"),
    ],
)
def test_an_encoding_with_a_fault_is_found_out(broken: type[Nibbles], message: str) -> None:
    encoding = broken()
    with pytest.raises(AssertionError, match=message):
        check_encoding(encoding, encoding.encode, parts=BYTES)


def test_an_encoding_that_says_that_it_loses_bits_is_held_to_its_ranges_only() -> None:
    encoding = LosesABit()
    check_encoding(encoding, encoding.encode, parts=BYTES, lossless=False)


def test_ranges_of_elements_are_ranges_of_bytes() -> None:
    assert byte_range(TensorSpec("F4", (8,)), 2, 6) == slice(1, 3)
