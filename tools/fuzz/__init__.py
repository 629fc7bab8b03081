"""Fuzzing: run.py runs every target; README.md says what there is."""
