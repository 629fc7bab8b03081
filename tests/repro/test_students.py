"""Distillation, few levels, and compression by layer, reduced: real images, few of them, few epochs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cmpk
from cmpk.train import ByLayer
from tools.repro import binary, distillation, layerwise
from tools.repro.classifier import fit
from tools.repro.data import DataError, Images, load_images
from tools.repro.models import lenet_5
from tools.repro.teachers import teacher_seeds


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield few(load_images(), 12_000)
    except DataError as error:
        # Where apt is, it can be had.
        if shutil.which("apt-get") and "CMPK_MNIST" not in os.environ:
            raise
        pytest.skip(str(error))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def baseline(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5, that is the teacher of one and the baseline of the other; trained once."""
    torch.manual_seed(0)
    model = lenet_5()
    fit(model, images, epochs=2, learning_rate=1e-3, seed=0, batch=64)
    path = tmp_path_factory.mktemp("baseline") / "baseline.pt"
    torch.save(model.state_dict(), path)
    return path


def few(images: Images, n: int) -> Images:
    return images._replace(train=images.train[:n], train_labels=images.train_labels[:n])


def test_a_taught_student_is_better_than_the_same_one_alone_and_is_packed_small(
    baseline: Path, images: Images, tmp_path: Path
) -> None:
    shutil.copy(baseline, tmp_path / f"baseline-{images.name}-8-0.pt")
    plan = distillation.Plan(teachers=1, student=40, compressed=12, batch=32, n_images=500)
    run, others = distillation.run_seed(0, tmp_path, images, plan)
    assert run.baseline_error < 18
    assert others["student_ratio"] > 10
    assert others["gain"] > 2
    assert run.error < others["alone_error"] - 2
    assert run.ratio > 120
    # What is kept on disk is not trained again, and comes to the same file.
    file = tmp_path / "seed-0" / "student.cmpk"
    before = file.read_bytes()
    file.unlink()
    assert distillation.run_seed(0, tmp_path, images, plan) == (run, others)
    assert file.read_bytes() == before


def test_lenet_5_has_binary_and_ternary_weights(baseline: Path, images: Images, tmp_path: Path) -> None:
    shutil.copy(baseline, tmp_path / f"baseline-{images.name}-8-0.pt")
    plan = binary.Plan(teachers=1, few_levels=2, batch=64)
    run, others = binary.run_seed(0, tmp_path, few(images, 3000), plan)
    assert run.baseline_error < 18
    assert run.error < run.baseline_error + 4.5
    assert others["ternary_error"] < run.baseline_error + 2.5
    assert run.ratio > 28
    assert others["ternary_ratio"] > 18
    with cmpk.open(tmp_path / "seed-0" / "binary.cmpk") as archive:
        for name in ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"):
            assert archive.entry(name).data.encoding == "affine"


def test_a_small_cnn_keeps_a_tenth_of_its_parameters(images: Images, tmp_path: Path) -> None:
    steps = ByLayer(share=0.5, bits=(6, 4))
    plan = layerwise.Plan(baseline=3, ratio=30, steps=steps, held_out=500, measured=500, batch=32)
    fewer = few(images, 4000)._replace(test=images.test[:2000], test_labels=images.test_labels[:2000])
    run, others = layerwise.run_seed(0, tmp_path, fewer, plan)
    assert run.baseline_error < 25
    assert run.error < run.baseline_error + 3
    assert others["parameters"] <= 10_861
    assert run.ratio > 30
    # What is finished is not done again.
    assert layerwise.run_seed(0, tmp_path, fewer, plan) == (run, others)


def test_teachers_are_those_of_one_seed_and_of_the_lowest_others() -> None:
    assert [teacher_seeds(seed, 3) for seed in (0, 1, 2, 7)] == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [7, 0, 1]]
    assert teacher_seeds(5, 1) == [5]
