"""Each rank of a group gets its share of an archive's tensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import Partial, Replicate, Shard

import cmpk
from cmpk.archive import Archive
from cmpk.errors import SourceError
from cmpk.shards import shard_index

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform != "linux", reason="torch has no process groups here"
)

PLACEMENTS: dict[str, list[Any]] = {
    "rows": [Shard(0)],
    "columns": [Shard(-1)],
    "middle": [Shard(1)],
    "few rows": [Shard(0)],
    "ids": [Shard(0)],
    "tied": [Shard(0)],
    "everywhere": [Replicate()],
}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    rows = (torch.randn(31, 40) * 0.02).bfloat16()
    return {
        "rows": rows,
        "columns": torch.randn(6, 9).half(),
        "middle": torch.randn(3, 5, 4),
        "few rows": torch.randn(1, 70),
        "ids": torch.arange(50),
        "tied": rows,
        "everywhere": torch.randn(20),
        "not named": torch.tensor(2.5),
    }


def run_rank(rank: int, folder: str) -> None:
    """One of two ranks: what it has, compared with what distributing the whole tensors gives it."""
    import torch.distributed as dist
    from torch.distributed.tensor import distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    decoded: dict[str, int] = {}
    read_range = Archive.read_range

    def counting(self: Archive, name: str, start: int, stop: int, threads: int = 1) -> Any:
        decoded[name] = decoded.get(name, 0) + stop - start
        return read_range(self, name, start, stop, threads)

    Archive.read_range = counting  # type: ignore[method-assign]
    found = cmpk.torch.load_sharded(f"{folder}/model.cmpk", mesh, PLACEMENTS, jobs=1)
    wrong = []
    for name, whole in tensors().items():
        expected = distribute_tensor(whole, mesh, PLACEMENTS.get(name, [Replicate()]))
        tensor = found[name]
        local, wanted = tensor.to_local(), expected.to_local()
        is_alike = (local.dtype, local.shape) == (wanted.dtype, wanted.shape) and torch.equal(local, wanted)
        is_alike &= (tensor.placements, tensor.shape) == (expected.placements, expected.shape)
        is_alike &= tensor.stride() == expected.stride() and torch.equal(tensor.full_tensor(), whole)
        wrong += [] if is_alike else [name]
    told = {"wrong": wrong, "decoded": decoded, "tied": found["tied"] is found["rows"]}
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def test_two_ranks_have_what_distributing_the_tensors_gives_them(tmp_path: Path) -> None:
    cmpk.torch.save_file(tensors(), tmp_path / "model.cmpk")
    torch.multiprocessing.spawn(run_rank, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["wrong"], second["wrong"]) == ([], [])
    assert (first["tied"], second["tied"]) == (True, True)
    # Only the rows that a rank keeps; whole rows where it keeps columns of them.
    parts = {
        "rows": (640, 600),
        "columns": (54, 54),
        "middle": (60, 60),
        "few rows": (70, 0),
        "ids": (25, 25),
    }
    for name, expected in parts.items():
        # A part that is the whole tensor is read with all others that are.
        assert (first["decoded"].get(name, 70), second["decoded"][name]) == expected


@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 7, 12])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
def test_shards_are_those_of_chunk(size: int, n_ranks: int) -> None:
    whole = torch.arange(size * 2).reshape(size, 2)
    chunks = [*whole.chunk(n_ranks), *[whole[:0]] * n_ranks] if size else [whole] * n_ranks
    for rank in range(n_ranks):
        index = shard_index("x", (size, 2), (n_ranks,), (rank,), [Shard(0)])
        assert torch.equal(whole[index], chunks[rank])


def test_two_dimensions_of_a_mesh_cut_one_dimension_in_turn() -> None:
    placements = [Shard(0), Shard(0)]
    found = [shard_index("x", (10,), (2, 3), (i, j), placements) for i in range(2) for j in range(3)]
    assert found == [(slice(a, b),) for a, b in [(0, 2), (2, 4), (4, 5), (5, 7), (7, 9), (9, 10)]]


@pytest.mark.parametrize("placements", [[], [Shard(0), Shard(0)], [Shard(2)], [Partial()]])
def test_placements_that_do_not_fit_are_refused(placements: list[Any]) -> None:
    with pytest.raises(SourceError, match="tensor 'x'"):
        shard_index("x", (4, 4), (2,), (0,), placements)
