"""The registry: id → implementation. Hooks are called once, when it is built; then it is a dictionary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import pluggy

from cmpk import builtins, hookspecs
from cmpk.codecs.base import Codec
from cmpk.encodings.base import Encoding
from cmpk.errors import PluginError, UnknownIdError

if TYPE_CHECKING:
    import click

    from cmpk.importers.base import Importer
    from cmpk.kernels.interface import KernelBackend
    from cmpk.passes.base import Pass

__all__ = [
    "Origin",
    "PluginProblem",
    "Registered",
    "Registry",
    "builtin_registry",
    "codec_of",
    "find",
    "registry",
]

T = TypeVar("T")

KINDS: Final = ("codecs", "encodings", "passes", "importers", "kernels", "commands")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who offers something: a distribution and its version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Registered(Generic[T]):
    """An implementation and who offers it."""

    item: T
    origin: Origin


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """A plugin, or an offer of one, that was left out."""

    origin: Origin
    reason: str


class Registry:
    """Everything that plugins offer, the built-ins first.

    A plugin that fails is left out and listed in `problems`; the others stay usable. An id that two
    plugins offer belongs to neither, and looking it up is an error that names both; an id of the
    specification always stays with cmpk.

    Attributes
    ----------
    problems : list of PluginProblem
    """

    def __init__(self, plugins: Iterable[tuple[Origin, object]]) -> None:
        self.problems: list[PluginProblem] = []
        self._offers: dict[str, dict[str, Registered[Any]]] = {}
        self._clashes: dict[str, dict[str, list[Origin]]] = {kind: {} for kind in KINDS}
        self._origins: dict[str, Origin] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for origin, plugin in plugins:
            self._register(origin, plugin)

    @property
    def codecs(self) -> Mapping[str, Registered[Codec]]:
        """Codecs by id."""
        return self._of_kind("codecs")

    @property
    def encodings(self) -> Mapping[str, Registered[Encoding]]:
        """Encodings by id."""
        return self._of_kind("encodings")

    @property
    def passes(self) -> Mapping[str, Registered[Pass]]:
        """Passes by id."""
        return self._of_kind("passes")

    @property
    def importers(self) -> Mapping[str, Registered[Importer]]:
        """Importers by id."""
        return self._of_kind("importers")

    @property
    def kernels(self) -> Mapping[str, Registered[KernelBackend]]:
        """Kernel backends by name."""
        return self._of_kind("kernels")

    @property
    def commands(self) -> Mapping[str, Registered[click.Command]]:
        """Subcommands by name."""
        return self._of_kind("commands")

    def lookup(self, kind: str, item_id: str) -> Any:
        """The implementation of an id.

        Raises
        ------
        PluginError
            If two plugins offer it.
        UnknownIdError
            If none does.
        """
        found = self._of_kind(kind).get(item_id)
        if found is not None:
            return found.item
        singular = {"passes": "pass", "kernels": "kernel backend"}.get(kind, kind.removesuffix("s"))
        rivals = self._clashes[kind].get(item_id)
        if rivals:
            names = " and ".join(str(origin) for origin in rivals)
            raise PluginError(f"{singular} {item_id!r} is offered by {names}; uninstall one of them")
        raise UnknownIdError(
            f"no {singular} is called {item_id!r}; there are {', '.join(self._of_kind(kind))}"
        )

    def _register(self, origin: Origin, plugin: object) -> None:
        try:
            name = self._manager.register(plugin)
        except (ValueError, pluggy.PluginValidationError) as error:
            self.problems.append(PluginProblem(origin, f"can't be registered: {error}"))
            return
        if name is not None:
            self._origins[name] = origin

    def _of_kind(self, kind: str) -> dict[str, Registered[Any]]:
        if kind not in self._offers:
            self._offers[kind] = {}
            for origin, item_id, item in self._ask(kind):
                self._offer(kind, origin, item_id, item)
        return self._offers[kind]

    def _ask(self, kind: str) -> Iterable[tuple[Origin, str, Any]]:
        # One call a plugin instead of one for all, so that a plugin that raises takes nobody with it.
        hook = getattr(self._manager.hook, f"cmpk_{kind}")
        for implementation in hook.get_hookimpls():
            origin = self._origins[implementation.plugin_name]
            try:
                offered = implementation.function()
                items = (
                    offered.items()
                    if isinstance(offered, Mapping)
                    else [(_id_of(item), item) for item in offered]
                )
                yield from [(origin, item_id, item) for item_id, item in items]
            except Exception as error:
                self.problems.append(
                    PluginProblem(origin, f"cmpk_{kind} failed: {type(error).__name__}: {error}")
                )

    def _offer(self, kind: str, origin: Origin, item_id: str, item: Any) -> None:
        offers, clashes = self._offers[kind], self._clashes[kind]
        holder = offers.get(item_id)
        if item_id in clashes:
            clashes[item_id].append(origin)
        elif holder is None:
            offers[item_id] = Registered(item, origin)
        elif holder.origin == _own_origin():
            self.problems.append(PluginProblem(origin, f"{kind}: {item_id!r} belongs to cmpk itself"))
        else:
            del offers[item_id]
            clashes[item_id] = [holder.origin, origin]
            self.problems.append(
                PluginProblem(origin, f"{kind}: {item_id!r} is also offered by {holder.origin}")
            )


def _id_of(item: Any) -> str:
    return str(item.id if hasattr(item, "id") else item.name)


@functools.cache
def builtin_registry() -> Registry:
    """What comes with cmpk; enough for most files, and cheaper than asking every installed plugin."""
    return Registry([(_own_origin(), builtins)])


@functools.cache
def registry() -> Registry:
    """What comes with cmpk and every installed plugin (entry-point group ``cmpk``)."""
    plugins: list[tuple[Origin, object]] = [(_own_origin(), builtins)]
    problems = []
    for entry in sorted(metadata.entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
        origin = Origin(entry.dist.name, entry.dist.version) if entry.dist else Origin(entry.value, "?")
        try:
            plugins.append((origin, entry.load()))
        except Exception as error:
            problems.append(PluginProblem(origin, f"can't be imported: {type(error).__name__}: {error}"))
    built = Registry(plugins)
    built.problems.extend(problems)
    return built


def find(kind: str, item_id: str) -> Registered[Any] | None:
    """An implementation, asking plugins only where cmpk itself does not have it; None if nobody does."""
    own: Mapping[str, Registered[Any]] = getattr(builtin_registry(), kind)
    if item_id in own:
        return own[item_id]
    everybody: Mapping[str, Registered[Any]] = getattr(registry(), kind)
    return everybody.get(item_id)


def codec_of(text: str) -> Codec:
    """A codec as recipes name it: an id, or an id, a colon and a level.

    Raises
    ------
    UnknownIdError, PluginError
        If there is no such codec, or two.
    """
    item_id, colon, level = text.partition(":")
    codec: Codec = registry().lookup("codecs", item_id)
    if not colon:
        return codec
    make: Callable[..., Codec] = type(codec)
    try:
        return make(level=int(level))
    except (TypeError, ValueError):
        raise UnknownIdError(f"codec {item_id!r} has no level {level!r}") from None


@functools.cache
def _own_origin() -> Origin:
    from cmpk.version import __version__

    return Origin("cmpk", __version__)
