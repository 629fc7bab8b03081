"""What a pass is: it decides, at pack time only, what a tensor becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Encoded, Part
from cmpk.format.manifest import Params

__all__ = ["Pass", "Planned", "Split", "branch"]


@dataclass(frozen=True, slots=True)
class Split:
    """An encoding that was chosen, with the parts it made; streams are not coded yet."""

    encoding: str
    spec: TensorSpec
    params: Params
    parts: Mapping[str, Planned]


Planned: TypeAlias = Part | Split


def branch(encoding: str, spec: TensorSpec, encoded: Encoded, **replaced: Planned) -> Split:
    """What an encoding made, with some of its parts planned further."""
    return Split(encoding, spec, encoded.params, {**encoded.parts, **replaced})


class Pass(ABC):
    """One decision about one tensor. Pure: no state, no reading of the model."""

    id: ClassVar[str]

    @abstractmethod
    def apply(self, name: str, part: Part, options: Mapping[str, object]) -> Planned | None:
        """Decide what a tensor becomes.

        Parameters
        ----------
        name : str
            The tensor's name.
        part : Part
            Its type, shape and bytes.
        options : mapping
            The pass's table in the recipe.

        Returns
        -------
        Planned or None
            The tree to store; None to leave the tensor to the next pass.

        Raises
        ------
        RecipeError
            If an option is unknown or out of range.
        """
