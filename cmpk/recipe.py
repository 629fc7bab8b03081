"""Recipes: which passes and codecs are tried for a model's tensors (TOML, cmpk/recipes/)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from cmpk.errors import RecipeError

__all__ = ["Recipe", "builtin_names", "load_recipe"]


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
    passes : mapping of str to mapping
        Passes in the order in which they are tried, with their options; the first that takes a
        tensor decides.
    """

    name: str
    summary: str = ""
    codecs: tuple[str, ...] = ("raw",)
    min_saving: float = 0.005
    passes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def builtin_names() -> list[str]:
    """Names of the recipes that come with cmpk."""
    folder = resources.files("cmpk") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


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
    if text in builtin_names():
        content = (resources.files("cmpk") / "recipes" / f"{text}.toml").read_text("utf-8")
        return _parse(text, content)
    path = Path(text)
    if path.suffix != ".toml":
        raise RecipeError(
            f"no recipe is named {text!r}; there are {', '.join(builtin_names())}, or name a .toml file"
        )
    try:
        return _parse(path.stem, path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {text!r} is not UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"can't read the recipe {text!r}: {reason}") from error


def _parse(name: str, content: str) -> Recipe:
    try:
        table = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"recipe {name!r}: {error}") from error
    known: dict[str, tuple[type, ...]] = {
        "summary": (str,),
        "codecs": (list,),
        "min_saving": (float, int),
        "passes": (dict,),
    }
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"recipe {name!r} has an unknown entry {key!r}; known are {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise RecipeError(f"recipe {name!r}: {key} must not be {value!r}; see the built-in recipes")
    min_saving = float(table.get("min_saving", 0.005))
    if not 0 <= min_saving <= 1:
        raise RecipeError(f"recipe {name!r}: min_saving is {min_saving}; give a share within 0 to 1")
    codecs = table.get("codecs", [])
    passes = table.get("passes", {})
    if not all(isinstance(codec, str) for codec in codecs):
        raise RecipeError(f"recipe {name!r}: codecs must be a list of ids")
    if not all(isinstance(options, dict) for options in passes.values()):
        raise RecipeError(f"recipe {name!r}: each entry of passes must be a table of options")
    codecs = tuple(dict.fromkeys(("raw", *codecs)))
    return Recipe(name, table.get("summary", ""), codecs, min_saving, passes)
