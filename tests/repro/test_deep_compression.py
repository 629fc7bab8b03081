"""Deep Compression of the LeNets, reduced: real images, few of them, few epochs."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cmpk.train import Cycle
from tools.repro.data import DataError, Images, load_images
from tools.repro.deep_compression import EXPERIMENTS, run_seed
from tools.repro.paper import layers_of


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield load_images()
    except DataError as error:
        # Where apt is, it can be had.
        if shutil.which("apt-get") and "CMPK_MNIST" not in os.environ:
            raise
        pytest.skip(str(error))
    finally:
        torch.set_num_threads(threads)


def few(images: Images, n: int, n_test: int) -> Images:
    return images._replace(
        train=images.train[:n],
        train_labels=images.train_labels[:n],
        test=images.test[:n_test],
        test_labels=images.test_labels[:n_test],
    )


def test_lenet_300_100_is_sixty_times_smaller_and_says_what_was_trained(
    images: Images, tmp_path: Path
) -> None:
    cycle = Cycle(kept=(0.05,), prune_epochs=3, recovery_epochs=3, share_epochs=3)
    experiment = dataclasses.replace(
        EXPERIMENTS["lenet-300-100"], baseline_epochs=2, cycle=cycle, chosen=0.05, teachers=1, batch=64
    )
    result = run_seed(experiment, 0, tmp_path, few(images, 10_000, 2_000))
    assert result.run.baseline_error < 18
    assert result.run.error < result.run.baseline_error + 1.5
    assert result.run.ratio > 65
    assert result.same_predictions
    layers = {layer.name: layer for layer in layers_of(Path(result.path))}
    assert 4.5 < layers["total"].kept < 5.001
    assert layers["fc1"].kept < layers["fc2"].kept < layers["fc3"].kept
    assert layers["total"].ratio == pytest.approx(100 / result.run.ratio, rel=1e-6)


def test_lenet_5_is_sixty_times_smaller_and_says_what_was_trained(images: Images, tmp_path: Path) -> None:
    cycle = Cycle(kept=(0.05,), prune_epochs=2, recovery_epochs=2, share_epochs=1)
    experiment = dataclasses.replace(
        EXPERIMENTS["lenet-5"], baseline_epochs=3, cycle=cycle, chosen=0.05, batch=32
    )
    result = run_seed(experiment, 0, tmp_path, few(images, 1_500, 1_000))
    assert result.run.baseline_error < 28
    assert result.run.error < result.run.baseline_error + 4
    assert result.run.ratio > 65
    assert result.same_predictions
