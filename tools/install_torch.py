"""Install the CPU build of the pinned torch, first of all, so that nothing else pulls a CUDA build.

On Linux the default package index serves a CUDA build of several gigabytes under the same version.
This asks pip what it would install before anything large is downloaded, and turns to PyTorch's own
index of CPU builds where the answer is a CUDA build. TORCH_INDEX names another index for torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# A CUDA build depends on these, a CPU build does not.
CUDA_PACKAGE = re.compile(r"(nvidia|cuda)[-_]|triton$")


def main() -> int:
    """Install torch as constraints.txt pins it; the exit code is 0 if a CPU build is in place."""
    requirement = pinned("torch")
    if installed_version() != requirement.partition("==")[2]:
        index = os.environ.get("TORCH_INDEX") or ("" if default_is_cpu_build(requirement) else CPU_INDEX)
        # Torch alone: such an index has not every release of what torch depends on.
        if index and pip("--no-deps", "--index-url", index, requirement).returncode:
            return fail(
                f"{index} has no {requirement} for this Python; try make PYTHON=python3.11 or TORCH_INDEX=URL"
            )
        if pip(requirement).returncode:
            return fail(f"can't install {requirement}; pip says why above")
    cuda = run_python("import torch; print(torch.version.cuda or '')")
    if cuda:
        return fail(f"this environment holds a CUDA {cuda} build of torch: make clean, and again")
    return 0


def pinned(name: str) -> str:
    """The line of constraints.txt that pins a package."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def installed_version() -> str:
    """Version of the torch in this environment, without a local tag such as ``+cpu``; "" for none."""
    return run_python(
        "import importlib.metadata as m\n"
        "print(next((d.version.partition('+')[0] for d in m.distributions(name='torch')), ''))"
    )


def default_is_cpu_build(requirement: str) -> bool:
    """Whether pip's own index serves a CPU build for this machine."""
    resolved = pip("--dry-run", "--report", "-", requirement, capture=True)
    if resolved.returncode:
        return False
    names = [item["metadata"]["name"].lower() for item in json.loads(resolved.stdout)["install"]]
    return not any(CUDA_PACKAGE.match(name) for name in names)


def pip(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run this interpreter's ``pip install`` with the constraints."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--constraint", str(CONSTRAINTS), *arguments]
    return subprocess.run(command, capture_output=capture, text=True, check=False)


def run_python(code: str) -> str:
    """What code prints in a fresh process of this interpreter: a package installed just now is seen."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def fail(message: str) -> int:
    """Say what is wrong, in one line."""
    print(f"install_torch: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
