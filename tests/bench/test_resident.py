from __future__ import annotations

import msgspec
import pytest

from tools.bench.resident import BEGIN, END, README, RECORDED, Case, Run, bars, tables
from tools.bench.results import this_machine

MEMORY = {"archive": 20, "model": 90, "loading": 100, "running": 60, "beyond_loaded": 40, "largest_layer": 2}


def run_of(**members: object) -> Run:
    case = msgspec.convert({"nbytes": 20, **members}, Case)
    return Run(this_machine(), 2, {"int8": case})


@pytest.mark.parametrize(("running", "cleared"), [(65, True), (66, False)])
def test_memory_may_be_the_archive_a_layer_and_activations(running: int, cleared: bool) -> None:
    figures = {
        way: {name: nbytes * 1_000_000 for name, nbytes in MEMORY.items()} for way in ("dense", "packed")
    }
    figures["packed"]["running"] = running * 1_000_000
    running_bar, loading_bar = bars(run_of(memory=figures))
    assert running_bar.cleared is cleared
    assert loading_bar.limit == 154


def test_times_are_compared_within_each_turn() -> None:
    # A machine that got slower half way: the ratio of the medians would be 2.
    times = {"dense": [1.0, 1.0, 10.0], "packed": [1.1, 2.0, 11.0], "quantized int8": [0.5, 0.5, 5.0]}
    packed, integers = bars(run_of(times={"32 x 128": times, "1 x 16": times}))
    assert packed.figure == pytest.approx(1.1)
    assert integers.figure == 0.5
    assert [row[3] for row in tables(run_of(times={"32 x 128": times, "1 x 16": times}))[0].rows] == [
        "1.00x",
        "1.10x",
        "0.50x",
    ]


def test_the_readme_has_the_tables_of_the_recorded_run() -> None:
    recorded = msgspec.json.decode(RECORDED.read_bytes(), type=Run)
    section = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    for table in tables(recorded):
        for row in table.rows:
            assert f"| {' | '.join(row)} |" in section
    assert all(bar.cleared for bar in bars(recorded))
