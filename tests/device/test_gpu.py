"""What only a real device shows: sizes of real models, memory, streams."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cmpk
from cmpk.archive import Archive

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
