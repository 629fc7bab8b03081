"""``cmpk diff``: two models, tensor by tensor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from cmpk.cli.text import decimal_text, error_text, plain, shape_text, things_text

if TYPE_CHECKING:
    from cmpk.comparison import Comparison, TensorDifference
    from cmpk.deviation import Deviation
    from cmpk.dtypes import TensorSpec

__all__ = ["diff"]

_DIFFERENT: Final = 1
_TROUBLE: Final = 2


class _Trouble(click.ClickException):
    """What keeps models from being compared; diff(1) has an exit code of its own for it."""

    exit_code = _TROUBLE

    def show(self, file: object = None) -> None:
        """Print the line that any error of cmpk gets."""
        click.echo(f"cmpk: error: {plain(self.message)}", err=True)


@click.command(short_help="Compare two models tensor by tensor.")
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--all", "show_all", is_flag=True, help="List the tensors that are identical, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and no progress.")
def diff(first: str, second: str, show_all: bool, as_json: bool) -> None:
    """Compare the tensors of FIRST and SECOND.

    Each is a .cmpk file, a model directory, a .safetensors file, or a torch checkpoint. Errors are
    those of SECOND against FIRST: relative error √Σ(y−x)²/√Σx², signal-to-noise ratio, cosine, and the
    largest difference. Exits with 0 if all tensors are bit-identical, 1 if they differ, 2 on trouble.

    With --json the output is an object with "identical", "total" and "tensors".
    """
    from cmpk.cli.console import progress_bar
    from cmpk.comparison import compare
    from cmpk.errors import CmpkError

    try:
        with progress_bar("comparing", quiet=as_json) as progress:
            found = compare(first, second, progress=progress)
    except CmpkError as error:
        raise _Trouble(str(error)) from error
    if as_json:
        click.echo(json.dumps(_json(found), indent=2))
    else:
        _show(found, show_all)
    click.get_current_context().exit(0 if found.is_identical else _DIFFERENT)


def _show(found: Comparison, show_all: bool) -> None:
    from cmpk.cli.console import output, table

    if found.is_identical:
        click.echo(f"bit-identical: {things_text(len(found.tensors), 'tensor')}")
        if not show_all:
            return
    rows = table("difference", ">error", ">SQNR dB", ">cosine", ">largest", "type", "tensor")
    for tensor in found.tensors:
        if show_all or not tensor.is_identical:
            rows.add_row(tensor.status, *_figures(tensor.deviation), _types(tensor), plain(tensor.name))
    if not found.is_identical:
        n_identical = sum(tensor.is_identical for tensor in found.tensors)
        rows.add_row("all", *_figures(found.total), "", f"{n_identical} of {len(found.tensors)} identical")
    with output() as out:
        out.print(rows)


def _figures(found: Deviation | None) -> tuple[str, str, str, str]:
    if found is None:
        return ("–",) * 4
    return (
        error_text(found.error),
        decimal_text(found.sqnr, 1),
        decimal_text(found.cosine, 6),
        error_text(found.largest),
    )


def _types(tensor: TensorDifference) -> str:
    texts = [f"{spec.dtype} {shape_text(spec.shape)}" for spec in (tensor.first, tensor.second) if spec]
    return " → ".join(dict.fromkeys(texts))


def _json(found: Comparison) -> dict[str, Any]:
    return {
        "identical": found.is_identical,
        "total": _deviation_json(found.total),
        "tensors": [
            {
                "name": tensor.name,
                "status": tensor.status,
                "first": _spec_json(tensor.first),
                "second": _spec_json(tensor.second),
                "deviation": _deviation_json(tensor.deviation),
            }
            for tensor in found.tensors
        ],
    }


def _spec_json(spec: TensorSpec | None) -> dict[str, Any] | None:
    return None if spec is None else {"dtype": spec.dtype, "shape": spec.shape}


def _deviation_json(found: Deviation | None) -> dict[str, Any] | None:
    from cmpk.format.quality import finite

    if found is None:
        return None
    return {
        "numel": found.numel,
        "error": finite(found.error),
        "sqnr_db": finite(found.sqnr),
        "cosine": found.cosine,
        "largest": finite(found.largest),
        "zeros": found.zeros,
    }
