"""Measures cmpk against its peers, and against the bars it was built to clear: ``python -m tools.bench``.

Every figure comes from a fresh process, on the same files and the same number of threads for every
tool; repetitions take turns, so that whatever else the machine does hits all alike. Nothing is
timed before it has given back every bit.
"""
