"""Kernel backends that plugins offer, chosen with CMPK_KERNELS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins.packages import Install, RunPython

COUNTING = """
from types import SimpleNamespace
from cmpk.hookspecs import hookimpl
from cmpk.kernels import reference

calls = {}

def counted(name):
    def operation(*arguments, **options):
        calls[name] = calls.get(name, 0) + 1
        return getattr(reference, name)(*arguments, **options)
    return operation

@hookimpl
def cmpk_kernels():
    return {"counting": SimpleNamespace(**{name: counted(name) for name in reference.__all__})}
"""

PACK_AND_LOAD = """
import json, sys
import numpy as np
import cmpk, cmpk.numpy
from cmpk import kernels
weight = np.random.default_rng(3).normal(0, 0.02, (200, 90)).astype(np.float32)
cmpk.numpy.save_file({"weight": weight}, sys.argv[1])
same = cmpk.numpy.load_file(sys.argv[1])["weight"].tobytes() == weight.tobytes()
import cmpk_counting
print(json.dumps([kernels.active_name(), cmpk_counting.calls, same]))
"""

ERROR_OF = """
import json
import cmpk
try:
    cmpk.open("nothing.cmpk")
except cmpk.CmpkError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def test_a_plugins_backend_does_the_work_when_it_is_named(
    install: Install, run_python: RunPython, tmp_path: Path
) -> None:
    install("cmpk-counting", COUNTING)
    name, calls, same = run_python(PACK_AND_LOAD, tmp_path / "a.cmpk", CMPK_KERNELS="counting")
    assert (name, same) == ("counting", True)
    assert {"float_split", "byte_histogram", "decode_floats"} <= calls.keys()
    _, calls, same = run_python(PACK_AND_LOAD, tmp_path / "b.cmpk", CMPK_KERNELS="reference")
    assert (calls, same) == ({}, True)
    assert (tmp_path / "a.cmpk").read_bytes() == (tmp_path / "b.cmpk").read_bytes()


def test_show_config_names_the_backend_of_a_plugin(install: Install, run_python: RunPython) -> None:
    install("cmpk-counting", COUNTING)
    code = "import json; from cmpk.config import config; print(json.dumps(config()['kernels']))"
    assert run_python(code, CMPK_KERNELS="counting") == "counting (of a plugin)"


def test_a_backend_that_nobody_offers_is_told_with_those_there_are(run_python: RunPython) -> None:
    kind, message = run_python(ERROR_OF, CMPK_KERNELS="counting")
    assert kind == "UnknownIdError"
    assert message.startswith("no kernel backend is called 'counting'; there are ")
    assert "reference" in message


def test_a_backend_that_was_left_out_is_told_with_the_reason(install: Install, run_python: RunPython) -> None:
    lacking = COUNTING.replace("in reference.__all__}", "in reference.__all__ if 'rans' not in name}")
    install("cmpk-counting", lacking)
    kind, message = run_python(ERROR_OF, CMPK_KERNELS="counting")
    assert kind == "UnknownIdError"
    assert "cmpk-counting 1.0 was left out" in message
    assert "lacks the operations rans_encode, rans_decode" in message


def test_a_backend_that_two_plugins_offer_is_an_error_that_names_both(
    install: Install, run_python: RunPython
) -> None:
    install("cmpk-counting", COUNTING)
    install("cmpk-recounting", COUNTING)
    kind, message = run_python(ERROR_OF, CMPK_KERNELS="counting")
    assert kind == "PluginError"
    assert "'counting' is offered by cmpk-counting 1.0 and cmpk-recounting 1.0; uninstall" in message


@pytest.mark.parametrize("name", ["", "reference"])
def test_no_plugin_is_asked_for_kernels_that_cmpk_has(
    name: str, install: Install, run_python: Callable[..., object]
) -> None:
    install("cmpk-counting", "raise ImportError('asked')")
    imported = "import json, sys, cmpk.config; cmpk.config.config(); print(json.dumps(list(sys.modules)))"
    assert "cmpk_counting" not in run_python(imported, CMPK_KERNELS=name)
