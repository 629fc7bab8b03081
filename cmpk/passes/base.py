"""What a pass is: it decides, at pack time only, what a tensor becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Encoded, Part
from cmpk.format.manifest import Params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Pass", "Planned", "Split", "Statistics", "branch"]


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


class Statistics(Protocol):
    """What calibration knows of a tensor.

    Attributes
    ----------
    kind : str
        The module that the tensor is the weight of: ``linear``, ``conv``, ``conv1d``, ``embedding``.
    count : int
        How many inputs were seen.
    second_moment : float32 array, shape (in_features, in_features) or (in_features,); or None
        Of the module's input, or its diagonal.
    gradient_squares : float32 array, shape of the tensor; or None
    """

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def count(self) -> int: ...  # noqa: D102
    @property
    def second_moment(self) -> NDArray[np.float32] | None: ...  # noqa: D102
    @property
    def gradient_squares(self) -> NDArray[np.float32] | None: ...  # noqa: D102


class Pass(ABC):
    """One decision about one tensor. Pure: no state, no reading of the model.

    Attributes
    ----------
    id : str
        Its name in recipes.
    is_lossless : bool
        Whether what it makes always decodes to the bytes that it was given. Packing then need not
        decode it to find out; of a plugin, it is held to that.
    """

    id: ClassVar[str]
    is_lossless: ClassVar[bool] = False

    @abstractmethod
    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """Decide what a tensor becomes.

        A pass whose ``apply`` does not take ``statistics`` is called without.

        Parameters
        ----------
        name : str
            The tensor's name.
        part : Part
            Its type, shape and bytes, as the passes before have left them.
        options : mapping
            The pass's entry in the recipe.
        statistics : Statistics, optional
            What calibration knows of it.

        Returns
        -------
        Part, Split or None
            A part of the same type and shape: other values, which go on to the next pass. A split: how
            the tensor is stored, which ends the chain. None: left alone, for the next pass.

        Raises
        ------
        RecipeError
            If an option is unknown or out of range.
        """

    def settle(
        self, tensors: Iterable[tuple[str, Part, Statistics | None]], options: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Look at a model before its first tensor is packed, to settle what depends on all of them.

        Parameters
        ----------
        tensors : iterable of (str, Part, Statistics or None)
            Those that the rule is for, as they come from the source. Each time that the first is taken, the
            model is read; take none where nothing depends on it.
        options : mapping
            The pass's entry in the recipe.

        Returns
        -------
        mapping
            The options for every `apply`.
        """
        return options
