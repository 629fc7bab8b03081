"""``python -m cmpk.cli``: the same as ``cmpk``."""

from cmpk.cli import main

main()
