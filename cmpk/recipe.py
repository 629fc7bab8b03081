"""Recipes: which passes and codecs are tried for which tensors of a model (TOML, cmpk/recipes/)."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.errors import RecipeError
from cmpk.format.layout import MAX_RANK

if TYPE_CHECKING:
    from cmpk.passes.base import Pass

__all__ = ["MODULES", "PassUse", "Recipe", "Rule", "builtin_names", "builtin_text", "load_recipe"]

MODULES: Final = ("linear", "conv", "conv1d", "embedding")
"""Kinds of modules that calibration tells apart, for ``modules`` of a rule."""


@dataclass(frozen=True, slots=True)
class PassUse:
    """A pass and the options that a rule gives to it.

    Attributes
    ----------
    id : str
    options : mapping
    item : Pass, optional
        The pass itself, where the recipe is made by a program: in place of a registered one.
    """

    id: str
    options: Mapping[str, object] = field(default_factory=dict)
    item: Pass | None = None


LOSSLESS: Final = PassUse("split_floats")
"""What ends a chain that does not end otherwise, so that what is left is stored small and bit-exact."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which passes a tensor goes through, if the rule is for it.

    Attributes
    ----------
    passes : tuple of PassUse
        In order: each gets what the one before it made, until one says how the tensor is stored.
    names : tuple of str
        Patterns with ``*``, ``?`` and ``[...]``, one of which the whole name must match; case counts.
    dtypes : tuple of str
    modules : tuple of str
        Out of `MODULES`; a tensor that was not calibrated is in none.
    min_rank, max_rank : int
        How many dimensions.
    min_numel : int
        How many elements.
    """

    passes: tuple[PassUse, ...] = ()
    names: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    min_rank: int = 0
    max_rank: int = MAX_RANK
    min_numel: int = 0

    def matches(self, name: str, spec: TensorSpec, module: str = "") -> bool:
        """Whether the rule is for a tensor; empty lists are for all."""
        return (
            self.min_rank <= len(spec.shape) <= self.max_rank
            and spec.numel >= self.min_numel
            and (not self.dtypes or spec.dtype in self.dtypes)
            and (not self.modules or module in self.modules)
            and (not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names))
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is packed.

    Attributes
    ----------
    name : str
        Recorded in the file; for people.
    summary : str
        One line on what it is for.
    codecs : tuple of str
        Codecs to try for every stream, the fastest to decode first: an id, or ``zstd:LEVEL``. ``raw``
        is always the first.
    min_saving : float
        A codec must save this share of a stream's bytes over those before it.
    rules : tuple of Rule
        The first that matches a tensor is its; one that none matches is only coded.
    """

    name: str
    summary: str = ""
    codecs: tuple[str, ...] = ("raw",)
    min_saving: float = 0.005
    rules: tuple[Rule, ...] = ()


def builtin_names() -> list[str]:
    """Names of the recipes that come with cmpk."""
    folder = resources.files("cmpk") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def builtin_text(name: str) -> str:
    """The TOML of a recipe that comes with cmpk.

    Raises
    ------
    RecipeError
        If there is none of that name.
    """
    if name not in builtin_names():
        raise RecipeError(
            f"no recipe is named {name!r}; there are {', '.join(builtin_names())}, or name a .toml file"
        )
    return (resources.files("cmpk") / "recipes" / f"{name}.toml").read_text("utf-8")


def load_recipe(recipe: str | os.PathLike[str] | Recipe) -> Recipe:
    """A recipe by its name, or from a TOML file.

    Raises
    ------
    RecipeError
        If there is none of that name, or the file is not a recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    text = os.fspath(recipe)
    path = Path(text)
    if path.suffix != ".toml" or text in builtin_names():
        return _parse(text, builtin_text(text))
    try:
        return _parse(path.stem, path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {text!r} is not UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"can't read the recipe {text!r}: {reason}") from error


def _parse(name: str, content: str) -> Recipe:
    where = f"recipe {name!r}"
    try:
        table = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{where}: {error}") from error
    known = {
        "summary": (str,),
        "codecs": (list,),
        "min_saving": (float, int),
        "passes": (dict,),
        "rules": (list,),
    }
    _check_entries(where, table, known)
    min_saving = float(table.get("min_saving", 0.005))
    if not 0 <= min_saving <= 1:
        raise RecipeError(f"{where}: min_saving is {min_saving}; give a share within 0 to 1")
    codecs = table.get("codecs", [])
    if not all(isinstance(codec, str) for codec in codecs):
        raise RecipeError(f"{where}: codecs must be a list of ids")
    rules = [_rule(f"{where}, rule {i}", entry) for i, entry in enumerate(table.get("rules", []), 1)]
    for_all = table.get("passes")
    if for_all is not None:
        if not all(isinstance(options, dict) for options in for_all.values()):
            raise RecipeError(f"{where}: each entry of passes must be a table of options")
        rules.append(Rule(tuple(PassUse(pass_id, options) for pass_id, options in for_all.items())))
    elif rules:
        rules.append(Rule((LOSSLESS,)))
    codecs = tuple(dict.fromkeys(("raw", *codecs)))
    return Recipe(name, table.get("summary", ""), codecs, min_saving, tuple(rules))


def _rule(where: str, entry: object) -> Rule:
    if not isinstance(entry, dict):
        raise RecipeError(f"{where} must be a table, as [[rules]] makes one")
    known: dict[str, tuple[type, ...]] = {"names": (list,), "dtypes": (list,), "modules": (list,)}
    known |= {"min_rank": (int,), "max_rank": (int,), "min_numel": (int,), "passes": (list,)}
    _check_entries(where, entry, known)
    for key in ("names", "dtypes", "modules"):
        values = entry.get(key)
        if values is not None and not (values and all(isinstance(value, str) for value in values)):
            raise RecipeError(f"{where}: {key} must be a list of strings; leave it out to match all")
    for key in ("min_rank", "max_rank", "min_numel"):
        if entry.get(key, 0) < 0:
            raise RecipeError(f"{where}: {key} is {entry[key]}; give a number from 0 on")
    modules = [module.lower() for module in entry.get("modules", [])]
    _check_among(where, "dtype", entry.get("dtypes", []), DTYPES)
    _check_among(where, "module", modules, MODULES)
    if "passes" not in entry:
        raise RecipeError(f"{where} has no passes; `passes = []` stores its tensors as they are")
    passes = [_pass_use(where, use) for use in entry["passes"]]
    if passes and all(use.id != LOSSLESS.id for use in passes):
        passes.append(LOSSLESS)
    return Rule(
        passes=tuple(passes),
        names=tuple(entry.get("names", [])),
        dtypes=tuple(entry.get("dtypes", [])),
        modules=tuple(modules),
        min_rank=entry.get("min_rank", 0),
        max_rank=entry.get("max_rank", MAX_RANK),
        min_numel=entry.get("min_numel", 0),
    )


def _pass_use(where: str, use: object) -> PassUse:
    if not isinstance(use, dict) or not isinstance(use.get("id"), str):
        raise RecipeError(f"{where}: {use!r} names no pass; give a table such as {{ id = {LOSSLESS.id!r} }}")
    return PassUse(use["id"], {key: value for key, value in use.items() if key != "id"})


def _check_entries(where: str, table: Mapping[str, Any], known: Mapping[str, tuple[type, ...]]) -> None:
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"{where} has an unknown entry {key!r}; known are {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise RecipeError(f"{where}: {key} must not be {value!r}; see the built-in recipes")


def _check_among(where: str, what: str, values: list[str], known: Any) -> None:
    for value in values:
        if value not in known:
            raise RecipeError(f"{where}: there is no {what} {value!r}; there are {', '.join(known)}")
