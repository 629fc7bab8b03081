"""The scripts with which `make` sets up its environment."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CPU_BUILD = ["torch", "sympy", "filelock"]
CUDA_BUILD = ["torch", "nvidia-cublas", "triton", "sympy"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pip:
    """Stands for pip with an index that resolves torch to certain packages; remembers what it was asked."""

    def __init__(self, resolved: list[str]) -> None:
        self.report = json.dumps({"install": [{"metadata": {"name": name}} for name in resolved]})
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
        self.asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, self.report, "")

    @property
    def installs(self) -> list[tuple[str, ...]]:
        return [arguments for arguments in self.asked if "--dry-run" not in arguments]


def run_install_torch(
    monkeypatch: pytest.MonkeyPatch, pip: Pip, *, installed: str = "", cuda: str = "", index: str = ""
) -> int:
    module = script("install_torch")
    monkeypatch.setattr(module, "pip", pip)
    monkeypatch.setattr(module, "installed_version", lambda: installed)
    monkeypatch.setattr(module, "run_python", lambda code: cuda)
    monkeypatch.setenv("TORCH_INDEX", index)
    return int(module.main())


def test_a_cpu_build_is_taken_from_the_default_index(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(CPU_BUILD)
    assert run_install_torch(monkeypatch, pip) == 0
    assert pip.installs == [("torch==2.13.0",)]


def test_where_the_default_index_has_a_cuda_build_torch_comes_from_the_cpu_index_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pip = Pip(CUDA_BUILD)
    assert run_install_torch(monkeypatch, pip) == 0
    index = "https://download.pytorch.org/whl/cpu"
    assert pip.installs == [("--no-deps", "--index-url", index, "torch==2.13.0"), ("torch==2.13.0",)]


def test_an_index_that_the_user_names_is_taken_without_asking_the_default_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pip = Pip(CUDA_BUILD)
    assert run_install_torch(monkeypatch, pip, index="https://mirror.example/cpu") == 0
    assert pip.asked[0] == ("--no-deps", "--index-url", "https://mirror.example/cpu", "torch==2.13.0")


def test_a_pinned_torch_that_is_there_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(CUDA_BUILD)
    assert run_install_torch(monkeypatch, pip, installed="2.13.0") == 0
    assert pip.asked == []


def test_a_cuda_build_in_the_environment_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_install_torch(monkeypatch, Pip(CPU_BUILD), installed="2.13.0", cuda="13.0") == 1
    assert re.fullmatch(r"install_torch: .* CUDA 13\.0 build of torch.*\n", capsys.readouterr().err)


def test_this_environment_has_a_cpu_build_of_torch() -> None:
    module = script("install_torch")
    assert module.run_python("import torch; print(torch.version.cuda or '')") == ""


def test_no_compiler_is_installed_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("install_compiler")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: pytest.fail("it installed something"))
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "g++" else None)
    monkeypatch.delenv("CXX", raising=False)
    module.main()


def test_every_dependency_is_pinned_to_a_release_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for requirement in named:
        name, _, oldest = requirement.partition(">=")
        if not name.startswith("cmpk"):
            assert version(pins[name]) >= version(oldest), requirement


def test_constraints_pin_each_package_once_and_without_a_local_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(set(names)) == len(names)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def test_setting_up_needs_nothing_but_the_standard_library() -> None:
    for name in ("install_torch", "install_compiler"):
        code = f"import runpy; runpy.run_path({str(ROOT / 'tools' / f'{name}.py')!r})"
        subprocess.run([sys.executable, "-S", "-I", "-c", code], check=True, timeout=60)
