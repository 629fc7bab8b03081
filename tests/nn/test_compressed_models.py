"""Models that stay compressed give the bits of dense ones, and refuse what they can't do."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk
import cmpk.nn
from cmpk.errors import CmpkError, CorruptStreamError, SourceError
from cmpk.nn import CompressedLayer
from cmpk.torch import load_model
from tests.nn.models import CODES, RECIPES, Image, Text, inputs, packed, seeded

ROOT = Path(__file__).parents[2]
KINDS = [Text, Image]


def compressed_names(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, CompressedLayer)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("resident", ["packed", "quantized"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_those_of_the_dense_model_to_the_bit(
    tmp_path: Path, kind: type[nn.Module], recipe: str, resident: str, dtype: torch.dtype
) -> None:
    path = packed(tmp_path, seeded(kind, dtype), recipe)
    dense = load_model(kind, path).eval()
    model = load_model(kind, path, resident=resident).eval()
    x = inputs(kind, dtype)
    with torch.inference_mode():
        for _ in range(3):
            assert torch.equal(model(x), dense(x))
    whole = {"embed", "first", "second", "attention", "attention.out_proj", "head"}
    expected = whole if kind is Text else {"flat", "line", "up"}
    if dtype is torch.bfloat16:
        expected -= {"attention.out_proj", "flat"}  # too small to be worth it
    # Groups along a dimension of three have almost as many scales as codes.
    if resident == "quantized" and (recipe == "lossless" or (kind, recipe) == (Image, "int4")):
        expected = set()
    assert compressed_names(model) == expected


def test_a_module_that_is_given_is_compressed_in_place(tmp_path: Path) -> None:
    saved = seeded(Text)
    model = Text().eval()
    assert load_model(model, packed(tmp_path, saved), resident="packed") == ([], [])
    with torch.inference_mode():
        assert torch.equal(model(inputs(Text)), saved(inputs(Text)))
    with pytest.raises(SourceError, match="compressed weights already"):
        load_model(model, packed(tmp_path, saved), resident="packed")


def test_the_smallest_weights_are_dense_as_far_as_is_allowed(tmp_path: Path) -> None:
    saved = seeded(Text)
    path = packed(tmp_path, saved)
    # first and second 65,536 bytes each, attention 49,152 and 16,384, the table 179,200.
    for nbytes, expected in (
        (16_383, {"embed", "first", "second", "attention", "attention.out_proj", "head"}),
        (65_536, {"embed", "first", "second", "head"}),
        (196_607, {"embed", "second", "head"}),
        (375_807, {"embed", "head"}),
        (1 << 40, set()),
    ):
        model = load_model(Text, path, resident="packed", dense_nbytes=nbytes).eval()
        assert compressed_names(model) == expected
        with torch.inference_mode():
            assert torch.equal(model(inputs(Text)), saved(inputs(Text)))
    with pytest.raises(SourceError, match="dense_nbytes is -1"):
        load_model(Text, path, resident="packed", dense_nbytes=-1)


@pytest.fixture
def text(tmp_path: Path) -> nn.Module:
    return load_model(Text, packed(tmp_path, seeded(Text)), resident="packed").eval()


class TestEmbeddings:
    @pytest.mark.parametrize("index", [[], [0], [699], [[5, 5], [699, 0]], list(range(699, 300, -1))])
    def test_rows_are_those_of_the_table(self, text: nn.Module, index: list[int]) -> None:
        given = torch.tensor(index, dtype=torch.int64)
        found = text.embed(given)
        assert torch.equal(found, seeded(Text).embed(given).detach())
        assert torch.equal(text.embed(given.int()), found)

    @pytest.mark.parametrize("index", [-1, 700])
    def test_a_row_that_is_not_there_is_an_index_error(self, text: nn.Module, index: int) -> None:
        with pytest.raises(IndexError, match=f"'embed.weight' has no row {index}"):
            text.embed(torch.tensor([3, index]))

    @pytest.mark.parametrize("resident", ["packed", "quantized"])
    def test_rows_of_a_large_table_come_from_several_blocks(self, tmp_path: Path, resident: str) -> None:
        table = nn.Embedding(40_000, 64)
        path = packed(tmp_path, table, "int8")
        dense = load_model(lambda: nn.Embedding(40_000, 64), path)
        model = load_model(lambda: nn.Embedding(40_000, 64), path, resident=resident)
        for n in (1, 30, 5000):
            index = torch.randint(0, 40_000, (n,))
            assert torch.equal(model(index), dense(index))

    def test_a_table_that_its_look_ups_change_stays_dense(self, tmp_path: Path) -> None:
        path = packed(tmp_path, nn.Embedding(700, 64))
        model = load_model(lambda: nn.Embedding(700, 64, max_norm=1.0), path, resident="packed")
        assert not isinstance(model, CompressedLayer)


class TestWhatModelsCanDo:
    def test_the_state_dict_has_the_decoded_values(self, text: nn.Module, tmp_path: Path) -> None:
        expected = seeded(Text).state_dict()
        found = text.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        dense = Text()
        dense.load_state_dict(found)
        cmpk.torch.save_model(text, tmp_path / "again.cmpk")
        assert load_model(Text, tmp_path / "again.cmpk").state_dict().keys() == expected.keys()

    def test_copies_share_what_is_stored_and_nothing_else(self, text: nn.Module) -> None:
        copied = copy.deepcopy(text)
        with torch.inference_mode():
            expected = text(inputs(Text))
            text.shift.zero_()
            assert torch.equal(copied(inputs(Text)), expected)
        assert copied.first._compressed_weights is text.first._compressed_weights
        assert compressed_names(copied) == compressed_names(text)

    def test_conversions_that_change_nothing_are_allowed(self, text: nn.Module) -> None:
        assert text.to("cpu").float().to(torch.float32) is text

    @pytest.mark.parametrize("convert", ["half", "double", "bfloat16"])
    def test_other_conversions_are_refused(self, text: nn.Module, convert: str) -> None:
        with pytest.raises(CmpkError, match=r"stay torch\.float32 on cpu.*resident='dense'"):
            getattr(text, convert)()
        with pytest.raises(CmpkError, match="on meta"):
            text.to("meta")

    def test_pickling_is_refused(self, text: nn.Module) -> None:
        for save in (pickle.dumps, lambda model: torch.save(model, io.BytesIO())):
            with pytest.raises(CmpkError, match=r"can't be pickled; keep its \.cmpk file"):
                save(text)

    def test_gradients_are_refused_and_parameters_frozen(self, text: nn.Module) -> None:
        assert not any(value.requires_grad for value in text.parameters())
        text(inputs(Text))
        with pytest.raises(CmpkError, match=r"no gradients flow.*resident='dense'"):
            text.first(torch.randn(2, 64, requires_grad=True))
        text.shift.requires_grad_(True)
        with pytest.raises(CmpkError, match="no gradients flow"):
            text(inputs(Text))
        with torch.no_grad():
            text(inputs(Text))

    def test_weights_can_not_be_replaced(self, text: nn.Module) -> None:
        for value in (torch.ones(256, 64), nn.Parameter(torch.ones(256, 64))):
            with pytest.raises(CmpkError, match="'weight' of a compressed layer can't be replaced"):
                text.first.weight = value
        with pytest.raises(CmpkError, match=r"'embed\.weight' is compressed and takes no new values"):
            text.load_state_dict(seeded(Text).state_dict())

    def test_it_says_what_it_is(self, text: nn.Module) -> None:
        assert "CompressedLinear(in_features=64, out_features=256, bias=True, compressed to" in repr(text)
        assert isinstance(text.first, nn.Linear)


class TestWeights:
    def test_a_weight_that_is_kept_stays_what_it_is(self, text: nn.Module) -> None:
        expected = seeded(Text).first.weight
        with torch.inference_mode():
            kept = text.first.weight
            rows = kept[3:5]
            for _ in range(4):
                text(inputs(Text))
            assert torch.equal(kept, expected)
            del kept
            for _ in range(4):
                text(inputs(Text))
            assert torch.equal(rows, expected[3:5])

    def test_memory_is_used_again(self, text: nn.Module) -> None:
        with torch.inference_mode():
            for _ in range(20):
                text(inputs(Text))
        scratch = text.first._compressed_weights._scratch
        gc.collect()
        assert sum(map(len, [*scratch._free, *scratch._returned])) <= 2 * 700 * 64 * 4

    def test_several_threads_may_run_one_model(self, text: nn.Module) -> None:
        x = inputs(Text)
        with torch.inference_mode():
            expected = seeded(Text)(x)
        same: list[bool] = []

        def work() -> None:
            with torch.inference_mode():
                same.extend(torch.equal(text(x), expected) for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert same == [True] * 80

    def test_a_closed_model_says_so(self, text: nn.Module) -> None:
        kept = text.first.weight
        cmpk.nn.close(text)
        cmpk.nn.close(text)
        with pytest.raises(CmpkError, match="has been closed; load it again"):
            text(inputs(Text))
        assert torch.equal(kept, seeded(Text).first.weight)

    def test_a_model_that_is_gone_leaves_no_thread(self, text: nn.Module) -> None:
        with torch.inference_mode():
            for _ in range(2):
                text(inputs(Text))
        weights = text.first._compressed_weights
        thread = next(iter(weights._ahead._threads))
        assert thread.is_alive()
        cmpk.nn.close(text)
        thread.join(10)
        assert not thread.is_alive()

    def test_the_file_may_be_gone(self, tmp_path: Path) -> None:
        path = packed(tmp_path, seeded(Text))
        model = load_model(Text, path, resident="packed").eval()
        path.unlink()
        with torch.inference_mode():
            assert torch.equal(model(inputs(Text)), seeded(Text)(inputs(Text)))

    @pytest.mark.parametrize("resident", ["packed", "quantized"])
    def test_damage_is_found_when_the_file_is_loaded(self, tmp_path: Path, resident: str) -> None:
        path = packed(tmp_path, seeded(Text), "int8")
        data = bytearray(path.read_bytes())
        with cmpk.open(path) as archive:
            data[min(archive.streams("first.weight")) + 100] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptStreamError, match=r"tensor 'first\.weight'"):
            load_model(Text, path, resident=resident)

    @pytest.mark.parametrize("is_ahead", [True, False])
    def test_what_breaks_a_rule_is_told_where_it_is_used(self, text: nn.Module, is_ahead: bool) -> None:
        weights = text.first._compressed_weights
        with torch.inference_mode():
            if is_ahead:
                text(inputs(Text))
            sound = weights._stored["second.weight"]
            broken = {offset: memoryview(bytes(len(view))) for offset, view in sound.streams.items()}
            weights._stored["second.weight"] = sound._replace(streams=broken)
            for _ in range(2):
                with pytest.raises(CorruptStreamError, match=r"tensor 'second\.weight'"):
                    text(inputs(Text))
                time.sleep(0.05)
            weights._stored["second.weight"] = sound
            text(inputs(Text))  # what was decoded ahead of the repair, perhaps
        with torch.inference_mode():
            assert torch.equal(text(inputs(Text)), seeded(Text)(inputs(Text)))


def test_codes_take_less_memory_than_what_they_decode_to(tmp_path: Path) -> None:
    for recipe in CODES:
        model = load_model(Text, packed(tmp_path, seeded(Text), recipe), resident="quantized")
        weights = model.first._compressed_weights
        dense = sum(weights.stored(name).spec.nbytes for name in weights._stored)
        assert weights.nbytes <= 0.4 * dense


FORK = """
import os, signal, sys, torch, cmpk.torch
from tests.nn.models import Text, inputs
torch.set_num_threads(1)
model = cmpk.torch.load_model(Text, sys.argv[1], resident="packed").eval()
with torch.inference_mode():
    expected = [model(inputs(Text)) for _ in range(2)][0]
    child = os.fork()
    signal.alarm(60)
    same = all(torch.equal(model(inputs(Text)), expected) for _ in range(3))
    if child == 0:
        os._exit(0 if same else 1)
    sys.exit(0 if same and os.waitpid(child, 0)[1] == 0 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_runs_the_model_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(packed(tmp_path, seeded(Text)))]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)


COMPILE = """
import sys, torch, cmpk.torch
from tests.nn.models import Text, inputs
path, resident, activations = sys.argv[1:]
model = cmpk.torch.load_model(Text, path, resident=resident, activations=activations).eval()
assert "torch._dynamo" not in sys.modules
with torch.inference_mode():
    expected = model(inputs(Text))
    compiled = torch.compile(model, backend="eager")
    assert all(torch.equal(compiled(inputs(Text)), expected) for _ in range(3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [("packed", "float"), ("quantized", "float"), ("quantized", "int8")])
def test_compiled_models_decode_between_their_graphs(tmp_path: Path, options: tuple[str, str]) -> None:
    path = packed(tmp_path, seeded(Text), "int8")
    command = [sys.executable, "-c", COMPILE, str(path), *options]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
