"""The tutorial in CONTRIBUTING.md says what the code says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cmpk import hookspecs
from cmpk.offers import KINDS

ROOT = Path(__file__).resolve().parents[2]

HOOKS = {name: getattr(hookspecs, name) for name in hookspecs.__all__ if name.startswith("cmpk_")}


def tutorial() -> str:
    """The section of CONTRIBUTING.md about plugins."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    found = re.search(r"^## Writing a plugin\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def described_hooks() -> dict[str, str]:
    """Signature and description of each hook in the table of the tutorial, by its name."""
    rows = re.findall(r"^\| `(cmpk_\w+)(.*?)` \| (.+) \|$", tutorial(), re.MULTILINE)
    assert all(description.strip() for _, _, description in rows)
    return {name: signature for name, signature, _ in rows}


def excerpts() -> list[tuple[str, str]]:
    """Each excerpt of the tutorial and the file that it is said to come from."""
    return re.findall(r"^<!-- from (\S+) -->\n```\w*\n(.*?)^```$", tutorial(), re.MULTILINE | re.DOTALL)


def test_every_kind_of_offer_has_a_hook() -> None:
    assert set(HOOKS) == {f"cmpk_{kind}" for kind in KINDS}


def test_every_hook_is_described_with_its_signature() -> None:
    # Annotations are text, so that the hooks' types need not be imported.
    signatures = {name: str(inspect.signature(hook)).replace("'", "") for name, hook in HOOKS.items()}
    assert described_hooks() == signatures


def test_every_hook_documents_itself() -> None:
    assert all(hook.__doc__ for hook in HOOKS.values())


@pytest.mark.parametrize(("place", "excerpt"), excerpts(), ids=lambda value: value[:40])
def test_an_excerpt_is_in_the_file_it_is_said_to_come_from(place: str, excerpt: str) -> None:
    assert excerpt in (ROOT / place).read_text("utf-8")


def test_the_tutorial_shows_each_step_on_the_plugin_itself() -> None:
    shown = {Path(place).name for place, _ in excerpts()}
    assert shown == {"pyproject.toml", "__init__.py", "codec.py", "test_lz4.py", "lossless-lz4.toml"}


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "plugins/cmpk-lz4/README.md", "plugins/cmpk-lz4/SPEC.md"]
)
def test_what_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", (ROOT / page).read_text("utf-8"))
    assert links or page == "CONTRIBUTING.md"
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link
