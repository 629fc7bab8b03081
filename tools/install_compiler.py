"""Where the machine has no C++ compiler, install one from the package index into this environment.

The package ``ziglang`` carries a whole clang. It is put where CMake looks: as ``cc``, ``c++``,
``ar`` and ``ranlib`` beside this interpreter, for builds that have that folder on their PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
# What CMake looks for.
COMPILERS = ("c++", "g++", "clang++")
TOOLS = ("cc", "c++", "ar", "ranlib")
WRAPPER = '#!/bin/sh\nexec "{python}" -m ziglang {tool} "$@"\n'


def main() -> None:
    """Do nothing where there is a compiler, or one was named in CXX."""
    if "CXX" in os.environ or any(map(shutil.which, COMPILERS)):
        return
    print("No C++ compiler here: installing one (ziglang); it takes about three minutes more", flush=True)
    command = [sys.executable, "-m", "pip", "install", "-qq", "--constraint", str(CONSTRAINTS), "ziglang"]
    subprocess.run(command, check=True)
    for tool in TOOLS:
        wrapper = Path(sys.executable).parent / tool
        wrapper.write_text(WRAPPER.format(python=sys.executable, tool=tool), encoding="utf-8")
        wrapper.chmod(0o755)


if __name__ == "__main__":
    main()
