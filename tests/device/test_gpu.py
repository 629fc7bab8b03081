"""What only a real device shows: sizes of real models, memory, streams."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk
from cmpk.archive import Archive
from cmpk.torch import load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing is run on one"),
]

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bits, not values."""
    a, b = a.cpu().reshape(-1), b.cpu().reshape(-1)
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of every kind, each of several chunks, 200 MB in all."""
    torch.manual_seed(0)
    tensors = {f"{dtype}": (torch.randn(3000, 3001) * 0.02).to(dtype) for dtype in DTYPES}
    tensors |= {f"rows, {dtype}": weights_of_two_kinds().to(dtype) for dtype in DTYPES[:3]}
    tensors["once half"] = (torch.randn(2000, 2000) * 0.02).half().float()
    tensors["ids"] = torch.arange(1_000_000)
    path = tmp_path_factory.mktemp("gpu") / "model.cmpk"
    cmpk.torch.save_file(tensors, path)
    return path


def weights_of_two_kinds() -> torch.Tensor:
    """Rows of two sizes of weights, in turn, so that they are grouped."""
    weight = torch.randn(4096, 1024) * 0.02
    weight[::2] *= 1e-4
    return weight


def test_whole_models_are_what_the_cpu_decodes(model: Path) -> None:
    expected = cmpk.torch.load_file(model)
    for _ in range(3):
        found = cmpk.torch.load_file(model, device="cuda")
        assert all(value.is_cuda for value in found.values())
        assert [name for name, value in found.items() if not same(value, expected[name])] == []


@pytest.mark.parametrize("recipe", ["int8", "nf4", "fp8", "lossless-max"])
def test_models_of_codes_are_what_the_cpu_decodes(tmp_path: Path, recipe: str) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.cmpk"
    cmpk.torch.save_file({"weight": torch.randn(1500, 1001) * 0.02}, path, recipe=recipe)
    expected = cmpk.torch.load_file(path)["weight"]
    assert same(cmpk.torch.load_file(path, device="cuda")["weight"], expected)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(700, 2100), slice(2999, 3000)])
def test_rows_are_those_of_the_whole_tensor(model: Path, rows: slice) -> None:
    expected = cmpk.torch.load_file(model)
    with cmpk.torch.safe_open(model, device="cuda") as file:
        found = {f"{dtype}": file.get_slice(f"{dtype}")[rows] for dtype in DTYPES}
    assert [name for name, value in found.items() if not same(value, expected[name][rows])] == []


def test_loading_takes_no_more_than_the_model_and_the_ring(model: Path) -> None:
    from cmpk.device.ring import N_SLOTS, SCRATCH_NBYTES, SLOT_NBYTES

    with Archive(model) as archive:
        nbytes = archive.decoded_nbytes
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = cmpk.torch.load_file(model, device="cuda")
    peak = torch.cuda.max_memory_allocated() - before
    assert len(found) > 5
    # The allocator gives blocks that are up to a megabyte larger than what is asked for.
    rounding = (len(found) + N_SLOTS + 2) << 20
    assert peak <= nbytes + N_SLOTS * SLOT_NBYTES + SCRATCH_NBYTES + rounding


def test_loading_on_a_stream_of_the_callers_own(model: Path) -> None:
    expected = cmpk.torch.load_file(model)
    with torch.cuda.stream(torch.cuda.Stream()):
        found = cmpk.torch.load_file(model, device="cuda")
        assert all(same(found[name], value) for name, value in expected.items())


def test_one_tensor_at_a_time(model: Path) -> None:
    expected = cmpk.torch.load_file(model)
    with cmpk.torch.safe_open(model, device="cuda") as file:
        assert [name for name, value in expected.items() if not same(file.get_tensor(name), value)] == []


def test_damage_is_noticed_on_the_device(model: Path, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "bad.cmpk").write_bytes(data)
    with pytest.raises(cmpk.CorruptStreamError, match="tensor '"):
        cmpk.torch.load_file(tmp_path / "bad.cmpk", device="cuda")


def stack() -> nn.Module:
    """Layers that take longer to decode than to launch."""
    return nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(8)))


@pytest.fixture(scope="module", params=["lossless", "int8"])
def packed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Weights of 64 MiB as bf16, each layer with values of its own."""
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("packed") / "stack.cmpk"
    cmpk.torch.save_model(stack().bfloat16(), path, recipe=request.param)
    return path


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(300, 2048, device="cuda", dtype=torch.bfloat16)


def test_models_that_stay_packed_give_the_bits_of_dense_ones(packed: Path, tokens: torch.Tensor) -> None:
    dense = load_model(stack, packed, device="cuda")
    model = load_model(stack, packed, device="cuda", resident="packed")
    assert {type(layer._compressed_weights).__name__ for layer in model} == {"DeviceWeights"}
    with torch.inference_mode():
        expected = dense(tokens)
        # The host is soon far ahead of the device, and waits for nothing.
        assert all(same(found, expected) for found in [model(tokens) for _ in range(30)])
        backwards = expected
        for layer in reversed(dense):
            backwards = layer(backwards)
        found = model(tokens)
        for layer in reversed(model):
            found = layer(found)
        assert same(found, backwards)


def test_several_streams_may_run_a_model_that_stays_packed(packed: Path, tokens: torch.Tensor) -> None:
    model = load_model(stack, packed, device="cuda", resident="packed")
    with torch.inference_mode():
        expected = load_model(stack, packed, device="cuda")(tokens).cpu()
    wrong: list[int] = []

    def run() -> None:
        with torch.cuda.stream(torch.cuda.Stream()), torch.inference_mode():
            own = tokens.clone()
            wrong.extend(turn for turn in range(10) if not same(model(own), expected))

    torch.cuda.synchronize()
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_running_packed_takes_two_layers_beside_what_is_stored(packed: Path, tokens: torch.Tensor) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = load_model(stack, packed, device="cuda", resident="packed")
    kept = model[0]._compressed_weights.nbytes
    assert kept <= 1.15 * packed.stat().st_size
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        for _ in range(5):
            model(tokens)
    layer, activations = 2 * 2048 * 2048, 3 * tokens.nbytes
    # Scratch for a layer's exponents and tables; blas keeps up to 32 MiB once it is used.
    rest = (6 << 20) + (33 << 20)
    assert torch.cuda.max_memory_allocated() - before <= kept + 2 * layer + activations + rest
