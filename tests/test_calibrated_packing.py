"""Packing with a calibration, end to end: the file says with which, meets its size, and is worth it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import cmpk
import cmpk.torch
from cmpk.calibration import Calibration, calibrate

FEATURES = 96


def inputs(n: int, seed: int) -> torch.Tensor:
    """Features of very different size, and not independent: what calibration is for."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(0))
    scale = torch.exp(torch.linspace(-2, 2, FEATURES))
    return (torch.randn(n, 24, generator=generator) @ mix[:24]) * scale


@pytest.fixture(scope="module")
def model() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64)
    ).eval()


@pytest.fixture(scope="module")
def calibration(model: torch.nn.Sequential) -> Calibration:
    return calibrate(model, [inputs(256, seed) for seed in range(1, 5)])


def output_error(model: torch.nn.Sequential, path: Path) -> float:
    """Relative error of the model's output on inputs that it was not calibrated with."""
    packed = torch.nn.Sequential(torch.nn.Linear(FEATURES, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
    packed.load_state_dict(cmpk.torch.load_file(path))
    with torch.no_grad():
        x = inputs(500, 99)
        return float((packed(x) - model(x)).norm() / model(x).norm())


def test_the_size_is_met_and_the_output_is_nearer_than_without(
    model: torch.nn.Sequential, calibration: Calibration, tmp_path: Path
) -> None:
    target = 20_000
    errors = []
    for given in (None, calibration):
        path = tmp_path / f"{given is None}.cmpk"
        cmpk.pack(model.state_dict(), path, target_size=target, calibration=given)
        assert 0.99 * target <= path.stat().st_size <= target
        errors.append(output_error(model, path))
    assert errors[1] < 0.8 * errors[0]


def test_the_file_names_the_calibration(
    model: torch.nn.Sequential, calibration: Calibration, tmp_path: Path
) -> None:
    calibration.save(tmp_path / "seen.safetensors")
    digest = hashlib.sha256((tmp_path / "seen.safetensors").read_bytes()).hexdigest()
    for name, given in (("a", calibration), ("b", tmp_path / "seen.safetensors")):
        cmpk.pack(model.state_dict(), tmp_path / name, target_bpw=4.0, calibration=given)
        with cmpk.open(tmp_path / name) as archive:
            archive.verify(deep=True)
            assert archive.manifest.calibration == digest
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_file_does_not_depend_on_threads(
    model: torch.nn.Sequential, calibration: Calibration, tmp_path: Path, jobs: int
) -> None:
    for name, threads in (("a", 2), ("b", jobs)):
        cmpk.pack(model.state_dict(), tmp_path / name, target_bpw=4.0, calibration=calibration, jobs=threads)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_modules_of_a_rule_are_those_of_the_calibration(
    model: torch.nn.Sequential, calibration: Calibration, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(
        '[[rules]]\nmodules = ["Linear"]\npasses = [{ id = "prune", ratio = 1.0 }]\n'
    )
    for given, n_zeros in ((calibration, FEATURES * 256 + 256 * 64), (None, 0)):
        cmpk.pack(
            model.state_dict(), tmp_path / "a", recipe=tmp_path / "mine.toml", calibration=given, force=True
        )
        loaded = cmpk.torch.load_file(tmp_path / "a")
        assert sum(int((value == 0).sum()) for value in loaded.values()) == n_zeros


def test_what_is_no_calibration_is_refused(model: torch.nn.Sequential, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no calibration")
    for path in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(cmpk.SourceError):
            cmpk.pack(model.state_dict(), tmp_path / "a", target_bpw=4.0, calibration=path)
    assert np.array_equal(sorted(tmp_path.iterdir()), [tmp_path / "text"])
