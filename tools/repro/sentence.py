"""Calibrated against trained: the reference sentence model at a fixed size.

    python -m tools.repro.sentence

Both files are of the same size at most. One is packed after calibration with 256 sentences. The other goes
on from it: the packed model learns from the original for ten minutes (self-distillation), from the
documentation of installed packages and the sentences of the calibration, on the grids of its tensors. What is
compared is the cosine between embeddings and the original's: of 306 other sentences, and of documentation
that was held out. Learning rates were chosen by the latter.
"""

from __future__ import annotations

import argparse
import ast
import functools
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
_WORDS: Final = (1996, 30522)
"""Of the vocabulary: what comes before are signs and single letters."""

_HELD_OUT: Final = 20
"""Of so many sentences of documentation one is not trained on."""

_PACKAGES: Final = ("pydoc_data", "numpy", "click", "rich", "email", "logging", "unittest", "asyncio")
"""Whose documentation is read, where they are installed."""

_PLAIN: Final = re.compile(r"[A-Z](?:[\w ,;'()]|-(?!-))*[.!?]")


class Plan(NamedTuple):
    """How large, and how long.

    Attributes
    ----------
    nbytes : int
        What either file may have.
    calibrated : int
        Sentences that are calibrated with.
    seconds : float
        Of training.
    max_steps : int
        No more than these.
    batch : int
        Sentences of each kind, in a step.
    table_rate, code_rate, rate : float
        Learning rates of what is below the codes of the embeddings' tables and of the layers' matrices, and
        of everything else.
    replaced : float
        Share of the words of the sentences for calibration that are others each time.
    scored : int
        Sentences of documentation that files are scored on, at most.
    """

    nbytes: int = 5_000_000
    calibrated: int = 256
    seconds: float = 600.0
    max_steps: int = 1_000_000
    batch: int = 16
    table_rate: float = 2e-4
    code_rate: float = 2e-5
    rate: float = 5e-5
    replaced: float = 0.15
    scored: int = 300


@functools.cache
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
        ``steps`` of training; of each file its bytes, mean and least cosine, the share of nearest neighbours
        that are kept, and the mean cosine of documentation, under ``calibrated_`` and ``trained_``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    calibration = _calibration(folder / f"calibration-{plan.calibrated}", plan.calibrated)
    calibrated, path = (folder / f"{name}.cmpk" for name in ("calibrated", "trained"))
    cmpk.pack(minilm.original(), calibrated, target_size=plan.nbytes, calibration=calibration, force=True)
    before = _quality("calibrated", calibrated, plan.scored)
    torch.manual_seed(seed)
    student = minilm.empty()
    steps = _learn(student, calibrated, seed, plan)
    train.save(student, path)
    if path.stat().st_size > plan.nbytes:
        raise RuntimeError(f"{path} has {path.stat().st_size} bytes: more than {plan.nbytes}")
    return {"steps": steps} | before | _quality("trained", path, plan.scored)


def _quality(kind: str, path: Path, count: int) -> dict[str, float]:
    """Of a file: on the sentences for evaluation, and on documentation that was not trained on."""
    tensors = cmpk.torch.load_file(path)
    found = minilm.quality(tensors)
    _, held_out = _split(documentation())
    of_text = minilm.quality(tensors, _tokens(held_out[:count]))
    nbytes = path.stat().st_size
    say(f"{kind}: {nbytes:,} bytes, cosine {found.mean:.6f}, of documentation {of_text.mean:.6f}")
    values = {"nbytes": nbytes, **found._asdict(), "documentation_mean": of_text.mean}
    return {f"{kind}_{name}": value for name, value in values.items()}


def _tokens(text: list[str]) -> list[list[int]]:
    return [ids[:_MAX_TOKENS] for ids in minilm.tokenized(text)]


def _calibration(path: Path, count: int) -> Calibration:
    """What the original does with the sentences for calibration; kept on disk."""
    if not path.exists():
        minilm.calibration(gradients=True, count=count).save(path)
    return load_calibration(path)


def _learn(student: nn.Module, calibrated: Path, seed: int, plan: Plan) -> int:
    """Train what was packed, on the grids of its matrices and tables; how many steps that took."""
    matrices = [
        name
        for name, tensor in student.named_parameters()
        if tensor.dim() == 2 and name.startswith(("encoder.", "embeddings."))
    ]
    train.take_up(student, calibrated, names=matrices, weights=minilm.original())
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        is_code, is_table = name.endswith(".original"), name.startswith("embeddings.")
        rate = plan.rate if not is_code else plan.table_rate if is_table else plan.code_rate
        groups.setdefault(rate, []).append(parameter)
    optimizer = torch.optim.Adam(
        [{"params": parameters, "rate": rate} for rate, parameters in groups.items()], betas=(0.9, 0.95)
    )
    teacher = minilm.model(minilm.original())
    layers = [f"encoder.layer.{index}" for index in range(_N_LAYERS)]
    batches = _batches(seed, plan)
    hints = train.Hints(student, teacher, [train.HiddenHint(each, each) for each in layers], *next(batches))
    started, step = time.perf_counter(), 0
    with hints:
        while (done := _done(started, step, plan)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * min(1.0, (step + 1) / 10) * (1 + math.cos(math.pi * done)) / 2
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
    return step


def _done(started: float, step: int, plan: Plan) -> float:
    return max((time.perf_counter() - started) / plan.seconds, step / plan.max_steps)


def _batches(seed: int, plan: Plan) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and masks of sentences of like length, half of them for calibration, without end."""
    choose, size = random.Random(seed), plan.batch
    own, docs = _tokens(minilm.sentences("calibration")), _tokens(_split(documentation())[0])
    while True:
        pool = choose.sample(own, min(len(own), size * _BATCHES_OF_LIKE_LENGTH // 2))
        pool = [_varied(ids, plan.replaced, choose) for ids in pool]
        pool += choose.sample(docs, min(len(docs), size * _BATCHES_OF_LIKE_LENGTH // 2))
        batches = list(minilm.batches(pool, size))
        choose.shuffle(batches)
        yield from ((ids, mask) for _, ids, mask in batches)


def _split(text: list[str]) -> tuple[list[str], list[str]]:
    """Sentences to train on, and those that are held out."""
    rest = [each for index, each in enumerate(text) if index % _HELD_OUT]
    return rest, text[::_HELD_OUT]


def _varied(ids: list[int], share: float, choose: random.Random) -> list[int]:
    """A sentence with some of its words replaced by others, frequent ones more often.

    The vocabulary is in the order of frequency. What the original makes of the words is all that is learned:
    they need no meaning.
    """
    first, last = _WORDS
    return [
        int(first * (last / first) ** choose.random()) if first <= each and choose.random() < share else each
        for each in ids
    ]


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
            "ratio": round(dense / found["trained_nbytes"], 2),
            "baseline_error": round(100 * (1 - found["calibrated_mean"]), 4),
            "error": round(100 * (1 - found["trained_mean"]), 4),
            "seeds": [options.seed],
            "seconds": round(time.perf_counter() - started, 1),
            **found,
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
