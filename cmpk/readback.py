"""Reading back what plugins had a hand in, before it is written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator

from cmpk.archive import Archive
from cmpk.coding import Coded, node_of
from cmpk.dtypes import TensorSpec
from cmpk.errors import PluginError
from cmpk.format import ContainerWriter, Manifest, TensorEntry

__all__ = ["check_readable", "naming"]


def check_readable(name: str, spec: TensorSpec, coded: Coded, digest: str, plugins: Iterable[str]) -> None:
    """Check that a file with a tensor is read back to its digest; cmpk's own work is held by its tests.

    Parameters
    ----------
    name : str
    spec : TensorSpec
    coded : Coded
    digest : str
        BLAKE3 of what it must decode to.
    plugins : iterable of str
        Those that had a hand in it.

    Raises
    ------
    PluginError
        If it is not; the message names the plugins.
    """
    sink = io.BytesIO()
    writer = ContainerWriter(sink)
    with naming(name, plugins):
        node = node_of(coded, writer.add_stream)
        entry = TensorEntry(name=name, dtype=spec.dtype, shape=spec.shape, blake3=digest, data=node)
        writer.finish(Manifest(producer="", tensors=[entry]))
        with Archive(sink.getvalue()) as archive:
            archive.verify(deep=True)


@contextlib.contextmanager
def naming(name: str, plugins: Iterable[str]) -> Iterator[None]:
    """Name the plugins, if there are any, in whatever is raised while a tensor is read back."""
    try:
        yield
    except Exception as error:
        names = " and ".join(sorted(set(plugins)))
        if not names:
            raise
        raise PluginError(f"what {names} made of {name!r} can't be read back: {error}") from error
