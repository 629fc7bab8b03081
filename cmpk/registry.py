"""The registry: id → implementation. Each hook is called once, when first needed; then it is a dictionary."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from cmpk import builtins, hookspecs, kernels
from cmpk.codecs.base import Codec
from cmpk.encodings.base import Encoding
from cmpk.errors import PluginError, UnknownIdError, blame
from cmpk.offers import KINDS, flaw_of, items_of, singular

if TYPE_CHECKING:
    from importlib import metadata

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
    "install_kernels",
    "registry",
]

T = TypeVar("T")


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

    @property
    def plugin(self) -> str:
        """The plugin that offers it, as ``name version``; empty for what comes with cmpk."""
        return "" if self.origin == _own_origin() else str(self.origin)


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

    Parameters
    ----------
    plugins : iterable of (Origin, object)
        Each object, most often a module, has hooks as attributes.
    problems : iterable of PluginProblem
        What was found before.
    """

    def __init__(
        self, plugins: Iterable[tuple[Origin, object]], problems: Iterable[PluginProblem] = ()
    ) -> None:
        self._problems = list(problems)
        self._offers: dict[str, dict[str, Registered[Any]]] = {}
        self._clashes: dict[str, dict[str, list[Origin]]] = {}
        self._plugins: list[tuple[Origin, object]] = []
        # Reentrant: a hook may look up what others offer.
        self._lock = threading.RLock()
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

    @property
    def problems(self) -> list[PluginProblem]:
        """All that was left out and why; asks every plugin for everything it has."""
        for kind in KINDS:
            self._of_kind(kind)
        return list(self._problems)

    def registered(self, kind: str, item_id: str) -> Registered[Any]:
        """The implementation of an id, and who offers it.

        Raises
        ------
        PluginError
            If two plugins offer it.
        UnknownIdError
            If none does.
        """
        offers = self._of_kind(kind)
        if item_id in offers:
            return offers[item_id]
        rivals = self.rivals(kind, item_id)
        if rivals:
            names = " and ".join(map(str, rivals))
            raise PluginError(f"{singular(kind)} {item_id!r} is offered by {names}; uninstall all but one")
        left_out = "".join(f"; {problem.origin} was left out: {problem.reason}" for problem in self._problems)
        raise UnknownIdError(
            f"no {singular(kind)} is called {item_id!r}; there are {', '.join(offers)}{left_out}"
        )

    def lookup(self, kind: str, item_id: str) -> Any:
        """The implementation of an id; raises as `registered` does."""
        return self.registered(kind, item_id).item

    def rivals(self, kind: str, item_id: str) -> list[Origin]:
        """The plugins that offer the same id, if there are several."""
        self._of_kind(kind)
        return self._clashes[kind].get(item_id, [])

    def problem_of(self, distribution: str) -> str:
        """Why a plugin, or part of it, was left out, as far as was noticed; empty if it was not."""
        reasons = (problem.reason for problem in self._problems if problem.origin.name == distribution)
        return next(reasons, "")

    def _register(self, origin: Origin, plugin: object) -> None:
        if any(plugin is known for _, known in self._plugins):
            self._leave_out(origin, "its entry points name the same object twice")
            return
        # The name is the plugin's number: the order in which it stands, whatever its hooks' options say.
        name = str(len(self._plugins))
        self._plugins.append((origin, plugin))
        try:
            self._manager.register(plugin, name)
            hooks = self._manager.get_hookcallers(plugin) or []
        except Exception as error:
            if self._manager.has_plugin(name):
                # Some releases of pluggy keep the hooks that they met before the faulty one.
                self._manager.unregister(name=name)
            self._leave_out(origin, f"can't be registered: {' '.join(str(error).split())}")
            return
        if not hooks:
            self._leave_out(
                origin, "offers nothing: no function in it is marked with cmpk.hookspecs.hookimpl"
            )
        for hook in hooks:
            if not hook.has_spec():
                known = ", ".join(f"cmpk_{kind}" for kind in KINDS)
                self._leave_out(origin, f"there is no hook {hook.name!r}; there are {known}")

    def _leave_out(self, origin: Origin, reason: str) -> None:
        self._problems.append(PluginProblem(origin, reason))

    def _of_kind(self, kind: str) -> dict[str, Registered[Any]]:
        with self._lock:
            if kind not in self._offers:
                offers: dict[str, Registered[Any]] = {}
                clashes: dict[str, list[Origin]] = {}
                for origin, item_id, item in self._ask(kind):
                    self._take(kind, offers, clashes, Registered(item, origin), item_id)
                for item_id, rivals in clashes.items():
                    for origin in rivals:
                        others = " and ".join(str(rival) for rival in rivals if rival != origin)
                        self._leave_out(origin, f"{singular(kind)} {item_id!r} is also offered by {others}")
                self._clashes[kind], self._offers[kind] = clashes, offers
            return self._offers[kind]

    def _ask(self, kind: str) -> Iterator[tuple[Origin, str, Any]]:
        # One call a plugin instead of one for all, so that a plugin that raises takes nobody with it.
        hook = getattr(self._manager.hook, f"cmpk_{kind}")
        for implementation in sorted(hook.get_hookimpls(), key=lambda found: int(found.plugin_name)):
            origin, _ = self._plugins[int(implementation.plugin_name)]
            try:
                judged = [
                    (item_id, item, f"offers {item!r}: {flaw}" if flaw else "")
                    for item_id, item in items_of(kind, implementation.function())
                    for flaw in [flaw_of(kind, item_id, item)]
                ]
            except (Exception, SystemExit) as error:
                _pass_on_signals(error)
                self._leave_out(origin, f"cmpk_{kind} failed: {type(error).__name__}: {error}")
                continue
            for item_id, item, fault in judged:
                if fault:
                    self._leave_out(origin, f"cmpk_{kind} {fault}")
                else:
                    yield origin, item_id, item

    def _take(
        self,
        kind: str,
        offers: dict[str, Registered[Any]],
        clashes: dict[str, list[Origin]],
        offered: Registered[Any],
        item_id: str,
    ) -> None:
        holder = offers.get(item_id)
        if item_id in clashes:
            clashes[item_id].append(offered.origin)
        elif holder is None:
            offers[item_id] = offered
        elif not holder.plugin:
            self._leave_out(offered.origin, f"{singular(kind)} {item_id!r} belongs to cmpk itself")
        else:
            del offers[item_id]
            clashes[item_id] = [holder.origin, offered.origin]


@functools.cache
def builtin_registry() -> Registry:
    """What comes with cmpk; enough for most files, and cheaper than asking every installed plugin."""
    return Registry([(_own_origin(), builtins)])


@functools.cache
def registry() -> Registry:
    """What comes with cmpk and every installed plugin (entry-point group ``cmpk``)."""
    plugins: list[tuple[Origin, object]] = [(_own_origin(), builtins)]
    entries, problems = _entry_points()
    for origin, entry in entries:
        try:
            plugins.append((origin, entry.load()))
        except (Exception, SystemExit) as error:
            _pass_on_signals(error)
            problems.append(PluginProblem(origin, f"can't be imported: {type(error).__name__}: {error}"))
    return Registry(plugins, problems)


def _entry_points() -> tuple[list[tuple[Origin, metadata.EntryPoint]], list[PluginProblem]]:
    """The entry points of the group, by distribution and name, and the packages that have unreadable ones."""
    from importlib import metadata

    found: dict[str, list[tuple[Origin, metadata.EntryPoint]]] = {}
    problems: dict[str, PluginProblem] = {}
    # Not metadata.entry_points: one package with a broken list of them would hide those of all others.
    for distribution in metadata.distributions():
        try:
            entries = distribution.entry_points.select(group=hookspecs.PROJECT)
        except Exception as error:
            name = str(distribution.name)
            reason = f"its entry points can't be read: {type(error).__name__}: {error}"
            problems.setdefault(name, PluginProblem(Origin(name, "?"), reason))
            continue
        if entries:
            origin = Origin(str(distribution.name), str(distribution.version))
            # The first on sys.path is the one that is imported.
            found.setdefault(
                origin.name, [(origin, entry) for entry in sorted(entries, key=lambda entry: entry.name)]
            )
    return [pair for name in sorted(found) for pair in found[name]], list(problems.values())


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
    registered: Registered[Codec] = registry().registered("codecs", item_id)
    if not colon:
        return registered.item
    make: Callable[..., Codec] = type(registered.item)
    with blame(f"codec {item_id!r}", registered.plugin):
        try:
            return make(level=int(level))
        except (TypeError, ValueError):
            raise UnknownIdError(f"codec {item_id!r} has no level {level!r}") from None


def install_kernels() -> None:
    """Let the kernels have the backend that CMPK_KERNELS names, where a plugin offers it.

    The kernels lie below the registry and can't ask it; what reads and writes archives calls this
    before it uses them.

    Raises
    ------
    UnknownIdError, PluginError
        If there is no such backend, or two.
    """
    name = kernels.requested()
    if name and name not in kernels.BUILT_IN:
        kernels.register(name, registry().lookup("kernels", name))


def _pass_on_signals(error: BaseException) -> None:
    """Raise the exit that a signal asked for while a plugin was at work: its code is above 128."""
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        raise error


@functools.cache
def _own_origin() -> Origin:
    from cmpk.version import __version__

    return Origin("cmpk", __version__)
