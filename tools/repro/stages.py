"""Stages of a reproduction, kept on disk: a run that was ended goes on after the last one it finished."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

import cmpk.torch
from cmpk import train
from tools.repro.classifier import logits_of
from tools.repro.data import WORK, DataError, Images, load_images
from tools.repro.report import Run, final_line, summary

__all__ = ["Packed", "checked", "in_processes", "main", "packed", "trained"]

Found = TypeVar("Found")

_PREDICT = """
import sys, numpy, torch, cmpk.torch
from tools.repro import {module}
from tools.repro.classifier import logits_of
from tools.repro.data import load_images
torch.set_num_threads(1)
model = cmpk.torch.load_model({module}.{factory}, sys.argv[1])
numpy.save(sys.argv[2], logits_of(model, load_images().test).numpy())
"""


class Packed:
    """A trained model's file.

    Attributes
    ----------
    path : path
    nbytes : int
    error : float
        Percent of the test images.
    """

    def __init__(self, path: Path, images: Images, factory: Callable[[], nn.Module]) -> None:
        self.path, self.nbytes = path, path.stat().st_size
        logits = logits_of(cmpk.torch.load_model(factory, path), images.test)
        self.error = 100 * float((logits.argmax(1) != images.test_labels).double().mean())


def trained(path: Path, model: nn.Module, fit: Callable[[nn.Module], object]) -> nn.Module:
    """A model with the weights that were kept under a path; trained and kept there if none were."""
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    fit(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    torch.save(model.state_dict(), partial)
    os.replace(partial, path)
    return model


def packed(path: Path, model: nn.Module, images: Images, factory: Callable[[], nn.Module]) -> Packed:
    """Save a trained model; see that a process which has the file alone says the same of every test image.

    Raises
    ------
    RuntimeError
        If it does not.
    """
    train.save(model, path)
    return checked(path, logits_of(model, images.test).argmax(1), images, factory)


def checked(
    path: Path, predictions: torch.Tensor, images: Images, factory: Callable[[], nn.Module]
) -> Packed:
    """See that a process which has a file alone predicts for every test image what was predicted in training.

    Raises
    ------
    RuntimeError
        If it does not.
    """
    outputs = path.with_suffix(".npy")
    program = _PREDICT.format(module=factory.__module__.rpartition(".")[2], factory=factory.__name__)
    subprocess.run([sys.executable, "-c", program, str(path), str(outputs)], check=True)
    found = torch.from_numpy(np.load(outputs))
    outputs.unlink()
    # A reduced run has seen the first of them.
    if not torch.equal(found.argmax(1)[: len(predictions)], predictions):
        raise RuntimeError(f"{path} does not predict what the model that was trained does")
    return Packed(path, images, factory)


def in_processes(
    function: Callable[..., Found], tasks: Sequence[tuple[object, ...]], n_jobs: int
) -> list[Found]:
    """Call a function of a module with each of some arguments, so many at a time, a core each."""
    with multiprocessing.get_context("spawn").Pool(
        min(n_jobs, len(tasks)), torch.set_num_threads, (1,)
    ) as pool:
        return pool.starmap(function, tasks, chunksize=1)


def main(
    name: str,
    run_seed: Callable[[int, Path, Images], tuple[Run, dict[str, Any]]],
    arguments: Sequence[str] | None,
    note: str,
    first: Callable[[int, Path, Images], object] | None = None,
) -> int:
    """Run the seeds, one core each, and print what they came to.

    Parameters
    ----------
    name : str
        Of the reproduction, and of its folder in ``.repro``.
    run_seed : function
        Of a module, given a seed, the folder of all seeds and the images: the run, and what else there is to
        tell.
    arguments : sequence of str, optional
        Of the command line.
    note : str
        Description, for its help.
    first : function, optional
        What is called for all seeds before any is run.
    """
    parser = argparse.ArgumentParser(description=note, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        data = load_images().name  # fetched once, before processes ask for it
    except DataError as error:
        parser.error(str(error))
    folder = WORK / name / data
    if first is not None:
        in_processes(_with_images, [(first, seed, folder) for seed in options.seeds], options.jobs)
    results = in_processes(_with_images, [(run_seed, seed, folder) for seed in options.seeds], options.jobs)
    runs, others = [run for run, _ in results], [other for _, other in results]
    (WORK / name / "results.json").write_text(
        json.dumps([run._asdict() | other for run, other in results], indent=1)
    )
    means = {
        key: round(sum(other[key] for other in others) / len(others), 3)
        for key in (others[0] if others else ())
    }
    final_line(summary(name, runs, time.perf_counter() - started, data=data, **means))
    return 0


def _with_images(function: Callable[[int, Path, Images], Found], seed: int, folder: Path) -> Found:
    return function(seed, folder, load_images())
