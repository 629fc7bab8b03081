"""Calibrated against trained: the reference sentence model at a fixed size.

    python -m tools.repro.sentence

Both files are of the same size at most. One is packed after calibration with 256 sentences. The other goes
on from it: the packed model learns from the original for ten minutes (self-distillation), from the
documentation of installed packages and the sentences of the calibration, on the grids of its tensors. What is
compared is the cosine between the embeddings of 306 other sentences and the original's.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import math
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn

import cmpk
import cmpk.torch
from cmpk import train
from cmpk.calibration import Calibration, load_calibration
from tools.bench import minilm
from tools.repro.data import WORK
from tools.repro.report import final_line, say

__all__ = ["Plan", "documentation", "run"]

_N_LAYERS: Final = 6
_MAX_TOKENS: Final = 64
_BATCHES_OF_LIKE_LENGTH: Final = 8
_PACKAGES: Final = ("pydoc_data", "numpy", "click", "rich", "email", "logging", "unittest", "asyncio")
"""Whose documentation is read, where they are installed."""

_PLAIN: Final = re.compile(r"[A-Z](?:[\w ,;'()]|-(?!-))*[.!?]")


class Plan(NamedTuple):
    """How large, and how long.

    Attributes
    ----------
    nbytes : int
        What either file may have.
    seconds : float
        Of training.
    max_steps : int
        No more than these.
    batch : int
        Sentences of each kind, in a step.
    code_rate, rate : float
        Learning rates of the weights below the codes, and of everything else.
    """

    nbytes: int = 7_000_000
    seconds: float = 600.0
    max_steps: int = 1_000_000
    batch: int = 16
    code_rate: float = 1e-5
    rate: float = 2e-5


def documentation(packages: Sequence[str] = _PACKAGES) -> list[str]:
    """Sentences of the docstrings of packages, in their order, each once."""
    found: dict[str, None] = {}
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                for text in _docstrings(path):
                    found.update(dict.fromkeys(_sentences(text)))
    return list(found)


def run(seed: int, folder: Path, plan: Plan) -> dict[str, float]:
    """Pack, train, pack again; and how near each is to the original.

    Returns
    -------
    dict
        Bytes of the files, and mean and least cosine, and share of nearest neighbours kept, of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    calibration = _calibration(folder / "calibration")
    calibrated, path = (folder / f"{name}.cmpk" for name in ("calibrated", "trained"))
    cmpk.pack(minilm.original(), calibrated, target_size=plan.nbytes, calibration=calibration, force=True)
    before = minilm.quality(cmpk.torch.load_file(calibrated))
    say(f"calibrated: {calibrated.stat().st_size:,} bytes, cosine {before.mean:.6f}")
    torch.manual_seed(seed)
    student = minilm.empty()
    steps = _learn(student, calibrated, seed, plan)
    train.save(student, path)
    if path.stat().st_size > plan.nbytes:
        raise RuntimeError(f"{path} has {path.stat().st_size} bytes: more than {plan.nbytes}")
    after = minilm.quality(cmpk.torch.load_file(path))
    say(f"trained: {path.stat().st_size:,} bytes, cosine {after.mean:.6f} after {steps} steps")
    return {
        "calibrated_nbytes": calibrated.stat().st_size,
        "nbytes": path.stat().st_size,
        "steps": steps,
        **{f"calibrated_{name}": value for name, value in before._asdict().items()},
        **after._asdict(),
    }


def _calibration(path: Path) -> Calibration:
    """What the original does with the sentences for calibration; kept on disk."""
    if not path.exists():
        minilm.calibration(gradients=True).save(path)
    return load_calibration(path)


def _learn(student: nn.Module, calibrated: Path, seed: int, plan: Plan) -> int:
    """Train what was packed; the embeddings' tables stay, since few of their rows are ever seen."""
    tables = [name for name, _ in student.named_parameters() if name.endswith("embeddings.weight")]
    weights = [
        name
        for name, tensor in student.named_parameters()
        if name.startswith("encoder.") and tensor.dim() == 2
    ]
    train.take_up(student, calibrated, names=weights, weights=minilm.original())
    for name in tables:
        student.get_parameter(name).requires_grad_(False)
    codes = [each for name, each in student.named_parameters() if name.endswith(".original")]
    others = [
        each
        for name, each in student.named_parameters()
        if each.requires_grad and not name.endswith(".original")
    ]
    rates = (plan.code_rate, plan.rate)
    optimizer = torch.optim.Adam(
        [{"params": params, "lr": rate} for params, rate in zip((codes, others), rates, strict=True)],
        betas=(0.9, 0.95),
    )
    teacher = minilm.model(minilm.original())
    layers = [f"encoder.layer.{index}" for index in range(_N_LAYERS)]
    batches = _batches(seed, plan.batch)
    hints = train.Hints(student, teacher, [train.HiddenHint(each, each) for each in layers], *next(batches))
    started, step = time.perf_counter(), 0
    with hints:
        while (done := _done(started, step, plan)) < 1:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (step + 1) / 10) * (1 + math.cos(math.pi * done)) / 2
            ids, mask = next(batches)
            with torch.no_grad():
                wanted = teacher(ids, mask)
            distance = 1 - (student(ids, mask) * wanted).sum(1).mean()
            loss = 10 * distance + hints.loss(mask) / _N_LAYERS
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 50 == 0:
                say(f"step {step}: loss {float(loss.detach()):.4f}, distance {float(distance.detach()):.4f}")
    _take_up_tables(student, calibrated, tables)
    return step


def _done(started: float, step: int, plan: Plan) -> float:
    return max((time.perf_counter() - started) / plan.seconds, step / plan.max_steps)


def _take_up_tables(student: nn.Module, calibrated: Path, tables: Sequence[str]) -> None:
    """Let the tables be stored as they were: on their grids, which they have not left."""
    other = minilm.empty()
    train.take_up(other, calibrated, names=tables)
    for name in tables:
        for each in train.parametrizations_of(other, name, train.Quantized):
            train.attach(student, name, each)


def _batches(seed: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and masks of sentences of like length, half of them for calibration, without end."""
    choose = random.Random(seed)
    own = [ids[:_MAX_TOKENS] for ids in minilm.token_ids("calibration")]
    docs = [ids[:_MAX_TOKENS] for ids in minilm.tokenized(documentation())]
    while True:
        pool = choose.sample(own, min(len(own), size * _BATCHES_OF_LIKE_LENGTH // 2))
        pool += choose.sample(docs, min(len(docs), size * _BATCHES_OF_LIKE_LENGTH // 2))
        batches = list(minilm.batches(pool, size))
        choose.shuffle(batches)
        yield from ((ids, mask) for _, ids, mask in batches)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_topics(path):
            yield node.value


def _is_topics(path: Path) -> bool:
    """The text that Python's ``help`` shows is no docstring."""
    return path.parent.name == "pydoc_data"


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if 6 <= len(sentence.split()) <= 40 and _PLAIN.fullmatch(sentence):
                yield sentence


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare both at one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nbytes", type=int, default=Plan().nbytes)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=Plan().max_steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    plan = Plan(nbytes=options.nbytes, seconds=60 * options.minutes, max_steps=options.steps)
    found = run(options.seed, WORK / "sentence", plan)
    dense = sum(tensor.nbytes for tensor in minilm.original().values())
    final_line(
        {
            "name": "sentence",
            "ratio": round(dense / found["nbytes"], 2),
            "baseline_error": round(100 * (1 - found["calibrated_mean"]), 4),
            "error": round(100 * (1 - found["mean"]), 4),
            "seeds": [options.seed],
            "seconds": round(time.perf_counter() - started, 1),
            **found,
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
