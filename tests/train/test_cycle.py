"""The whole cycle under a budget, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk.torch
from cmpk.errors import PassError, SourceError
from cmpk.train import Cycle, Epoch, Result, compress_to

ROOT = Path(__file__).resolve().parents[2]
INPUTS = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS[:, :4].sum(1) > 0).long()
CYCLE = Cycle(
    kept=(0.5, 0.2, 0.1), prune_epochs=2, recovery_epochs=1, share_epochs=2, n_values=4, bias_values=4
)


class KilledError(Exception):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))


def train_epoch(model: nn.Module, epoch: Epoch) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if "optimizer" in epoch.state:
        optimizer.load_state_dict(epoch.state["optimizer"])
    for batch in torch.randperm(256).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS[batch]), LABELS[batch]).backward()
        optimizer.step()
    epoch.state["optimizer"] = optimizer.state_dict()


def evaluate(model: nn.Module) -> float:
    return float((model(INPUTS).argmax(1) == LABELS).double().mean())


def compress(folder: Path, **options: object) -> Result:
    arguments = {"budget": None, "train_epoch": train_epoch, "cycle": CYCLE, **options}
    return compress_to(network(), evaluate=evaluate, folder=folder, **arguments)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    names = ("rung-1.cmpk", "rung-2.cmpk", "rung-3.cmpk", "log.jsonl", "plot.svg")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    compress(folder)
    return folder


def test_every_rung_makes_a_smaller_file_that_scores_what_the_log_says(unbroken: Path) -> None:
    result = compress(unbroken)
    sizes = [trial.nbytes for trial in result.trials]
    assert sizes == sorted(sizes, reverse=True)
    assert [trial.kept for trial in result.trials] == [0.5, 0.2, 0.1]
    for trial in result.trials:
        loaded = cmpk.torch.load_model(network, unbroken / trial.file)
        assert evaluate(loaded) == trial.score
        assert (unbroken / trial.file).stat().st_size == trial.nbytes < trial.pruned_nbytes
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if "phase" in line] == (["prune"] * 3 + ["share"] * 2) * 3
    assert [line["nbytes"] for line in lines if "nbytes" in line] == sizes
    assert (unbroken / "plot.svg").read_text().count("<circle") == 3


@pytest.mark.parametrize("killed_after", [2, 4, 5])
def test_a_cycle_that_was_killed_comes_to_the_same_files(
    killed_after: int, unbroken: Path, tmp_path: Path
) -> None:
    left = [killed_after]

    def until_killed(model: nn.Module, epoch: Epoch) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        train_epoch(model, epoch)

    with pytest.raises(KilledError):
        compress(tmp_path, train_epoch=until_killed)
    compress(tmp_path)
    assert contents(tmp_path) == contents(unbroken)


def test_processes_that_are_killed_come_to_the_same_files(unbroken: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path[:0] = [{str(ROOT / 'tests/train')!r}]\nfrom pathlib import Path\n"
    code += f"from test_cycle import compress\ncompress(Path({str(tmp_path)!r}), progress=print)"
    for n_lines in (4, 3):
        command = [sys.executable, "-u", "-c", code]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(n_lines):
                assert process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
    compress(tmp_path)
    assert contents(tmp_path) == contents(unbroken)


def test_a_cycle_ends_at_its_budget_or_at_its_floor(unbroken: Path, tmp_path: Path) -> None:
    sizes = [trial.nbytes for trial in compress(unbroken).trials]
    met = compress(tmp_path / "budget", budget=sizes[1])
    assert [trial.nbytes for trial in met.trials] == sizes[:2]
    assert met.chosen == met.trials[1]
    assert met.path == tmp_path / "budget" / "rung-2.cmpk"
    stopped = compress(tmp_path / "floor", floor=1.5)
    assert len(stopped.trials) == 1
    assert stopped.chosen is stopped.path is None
    assert compress(unbroken, budget=1).chosen is None
    smallest = compress(unbroken).chosen
    assert smallest is not None
    assert smallest.nbytes == min(sizes)


def test_checkpoints_of_other_cycles_and_rungs_that_do_not_descend_are_refused(unbroken: Path) -> None:
    with pytest.raises(SourceError, match="another run"):
        compress(unbroken, cycle=Cycle(kept=(0.5,)))
    with pytest.raises(PassError, match="descending"):
        compress(unbroken, cycle=Cycle(kept=(0.1, 0.5)))
    with pytest.raises(PassError, match="an epoch at least"):
        compress(unbroken, cycle=Cycle(prune_epochs=0, recovery_epochs=0))
