"""Quantize and prune by layer until a budget is met, killed and resumed."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk
import cmpk.torch
from cmpk.errors import PassError, SourceError
from cmpk.train import ByLayer, Epoch, Result, Step, compress_by_layer

ROOT = Path(__file__).resolve().parents[2]
INPUTS = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS[:, :4].sum(1) > 0).long()
TOTAL = 16 * 32 + 32 + 32 * 8 + 8 + 8 * 2 + 2
BUDGET = 300
PLAN = ByLayer(share=0.4, bits=(8, 4), recovery_epochs=2)


class KilledError(Exception):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2))


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


def minus_loss(model: nn.Module) -> float:
    return -float(nn.functional.cross_entropy(model(INPUTS), LABELS))


@functools.cache
def trained() -> nn.Sequential:
    model = network()
    for number in range(20):
        torch.manual_seed(number)
        train_epoch(model, Epoch("recover", 0, 1, number))
    return model


def compress(folder: Path, **options: object) -> Result[Step]:
    arguments = {"parameters": BUDGET, "plan": PLAN, "measure": minus_loss, "train_epoch": train_epoch}
    return compress_by_layer(trained(), evaluate=evaluate, folder=folder, **{**arguments, **options})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checkpoint.pt"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    compress(folder)
    return folder


def test_layers_are_pruned_to_exactly_so_many_parameters_and_are_on_grids(unbroken: Path) -> None:
    result = compress(unbroken)
    last = result.trials[-1]
    assert last.n_parameters == BUDGET
    assert last.kept == BUDGET / TOTAL
    assert result.chosen == last
    assert result.path == unbroken / last.file
    loaded = cmpk.torch.load_model(network, unbroken / last.file)
    assert evaluate(loaded) == last.score > 0.9
    zeros = sum(int((value == 0).sum()) for value in loaded.parameters())
    assert zeros >= TOTAL - BUDGET
    state = loaded.state_dict()
    for name in ("0.weight", "2.weight", "4.weight"):
        n_steps = sum(step.layer == name for step in result.trials)
        if n_steps:
            n_levels = max(len(row.unique()) for row in state[name])
            assert n_levels <= 2 ** PLAN.bits[min(n_steps, 2) - 1]


def test_every_step_is_taken_where_it_costs_least_and_is_in_the_log(unbroken: Path) -> None:
    steps = compress(unbroken).trials
    for step in steps:
        assert step.costs[step.layer] == min(step.costs.values())
        loaded = cmpk.torch.load_model(network, unbroken / step.file)
        assert evaluate(loaded) == step.score
        assert (unbroken / step.file).stat().st_size == step.nbytes
    counts = [step.n_parameters for step in steps]
    assert counts == sorted(set(counts), reverse=True)
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if "phase" in line] == ["recover"] * 2 * len(steps)
    assert [line["layer"] for line in lines if "layer" in line] == [step.layer for step in steps]


@pytest.mark.parametrize("killed_after", [0, 1, 4, 7])
def test_a_run_that_was_killed_comes_to_the_same_files(
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
    code += f"from test_layerwise import compress\ncompress(Path({str(tmp_path)!r}), progress=print)"
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    compress(tmp_path)
    assert contents(tmp_path) == contents(unbroken)


def test_a_budget_of_bytes_is_that_of_the_whole_file(tmp_path: Path) -> None:
    sizes = [step.nbytes for step in compress(tmp_path / "all", parameters=None, nbytes=2000).trials]
    assert sizes[-1] <= 2000 < min(sizes[:-1])
    both = compress(tmp_path / "both", parameters=600, nbytes=2000)
    assert both.chosen is not None
    assert both.chosen.n_parameters <= 600
    assert both.chosen.nbytes <= 2000


def test_steps_end_at_the_floor(tmp_path: Path) -> None:
    stopped = compress(tmp_path / "high", floor=1.5)
    assert len(stopped.trials) == 1
    assert stopped.chosen is stopped.path is None
    result = compress(tmp_path / "low", parameters=None, floor=0.9, plan=ByLayer(share=0.7, bits=(4, 2)))
    assert result.chosen is not None
    assert result.chosen.score >= 0.9
    good = [step for step in result.trials if step.score >= 0.9]
    assert result.chosen.nbytes == min(step.nbytes for step in good)
    assert all(step in good for step in result.trials[:-1])


def test_layers_that_are_not_named_are_trained_alone(tmp_path: Path) -> None:
    result = compress(tmp_path, parameters=600, plan=ByLayer(share=0.3, names=("0.weight",)))
    assert {step.layer for step in result.trials} == {"0.weight"}
    assert result.path is not None
    state = cmpk.torch.load_file(result.path)
    with cmpk.open(result.path) as archive:
        assert archive.entry("0.weight").data.encoding in ("affine", "row_groups")
        assert archive.entry("2.weight").data.encoding not in ("affine", "row_groups")
    assert state["2.weight"].count_nonzero() == state["2.weight"].numel()
    assert len(state["2.weight"].unique()) > 200


def test_whole_neurons_are_pruned_where_they_are_asked_for(tmp_path: Path) -> None:
    plan = ByLayer(share=0.3, bits=(), prune={"structure": "row"}, names=("0.weight", "2.weight"))
    result = compress(tmp_path, parameters=500, plan=plan)
    assert result.path is not None
    weight = cmpk.torch.load_file(result.path)["0.weight"]
    dead = (weight == 0).all(1)
    assert dead.any()
    assert (weight[~dead] != 0).all()
    assert all(step.bits is None for step in result.trials)


def test_the_last_step_there_is_ends_it_without_a_choice(tmp_path: Path) -> None:
    result = compress(tmp_path, parameters=1, plan=ByLayer(share=0.6, bits=(), recovery_epochs=0))
    assert result.chosen is result.path is None
    assert len(result.trials) > 3
    assert result.trials[-1].n_parameters < 60


def test_checkpoints_of_other_runs_and_runs_without_an_end_are_refused(
    unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="another run"):
        compress(unbroken, plan=ByLayer(share=0.5))
    with pytest.raises(PassError, match="give a budget"):
        compress(tmp_path, parameters=None)
    with pytest.raises(PassError, match="below 1, not 1"):
        compress(tmp_path, plan=ByLayer(share=1))
    with pytest.raises(SourceError, match="no tensor 'x'"):
        compress(tmp_path, plan=ByLayer(names=("x",)))
