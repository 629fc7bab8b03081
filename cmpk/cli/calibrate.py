"""``cmpk calibrate``: what a model sees while it runs, kept in a file."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cmpk.cli.text import bytes_text, seconds_text, things_text

__all__ = ["calibrate"]


@click.command(short_help="Learn from sample inputs which errors matter.")
@click.argument("function")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def calibrate(function: str, output: str, force: bool) -> None:
    """Run a model over sample batches, for `cmpk pack --calibration`.

    FUNCTION is MODULE:FUNCTION, without arguments. It returns the torch module and an iterable of
    batches: a tensor, a tuple of arguments or a dict of them, each. It may return a loss as well, a
    function of the model's output and the batch: its gradients tell best which weights matter.
    """
    from cmpk.calibration import calibrate as calibrated
    from cmpk.errors import SourceError
    from cmpk.format import atomic_file
    from cmpk.functions import function_of

    started = time.perf_counter()
    given = function_of(function)()
    if not isinstance(given, tuple) or len(given) not in {2, 3}:
        raise SourceError(f"{function!r} must return a model and batches, or these and a loss")
    with atomic_file(Path(output), overwrite=force) as file:
        found = calibrated(*given)
        content = found.to_bytes()
        file.write(memoryview(content))
    n_gradients = sum(seen.gradient_squares is not None for seen in found.tensors.values())
    weights = things_text(len(found.tensors), "weight")
    with_gradients = f", {n_gradients} with gradients" if n_gradients else ""
    click.echo(
        f"{bytes_text(len(content)):>7}  {output}: {weights}{with_gradients}, "
        f"in {seconds_text(time.perf_counter() - started)}"
    )
