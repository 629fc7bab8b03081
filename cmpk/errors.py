"""Every error that cmpk raises on purpose.

CmpkError
├── FormatError            the file breaks a rule of the specification
│   └── CorruptStreamError     ... in the bytes of one stream
├── UnknownIdError         a codec, encoding or pass that is not installed
├── SourceError            what was given to pack, or named to load, can't be used
├── DestinationError       the output can't be written, or would overwrite something
├── PassError              a pass can't do what it was asked to
├── DeviceError            a device is missing or failed
├── PluginError            a plugin is broken or clashes with another
└── RecipeError            a recipe is unknown or malformed
"""

from types import TracebackType

__all__ = [
    "CmpkError",
    "CorruptStreamError",
    "DestinationError",
    "DeviceError",
    "FormatError",
    "PassError",
    "PluginError",
    "RecipeError",
    "SourceError",
    "UnknownIdError",
    "blame",
]


class CmpkError(Exception):
    """Root of all errors that cmpk raises on purpose."""


class FormatError(CmpkError):
    """The file breaks a rule of the specification."""


class CorruptStreamError(FormatError):
    """The bytes of one stream break a rule of its codec or encoding."""


class UnknownIdError(CmpkError):
    """A codec, encoding or pass is named that is not installed."""


class SourceError(CmpkError):
    """A file, model or tensor that was named is missing or can't be used."""


class DestinationError(CmpkError):
    """The output can't be written, or would overwrite something."""


class PassError(CmpkError):
    """A pass can't do what it was asked to."""


class DeviceError(CmpkError):
    """A device is missing or failed."""


class PluginError(CmpkError):
    """A plugin is broken, or two plugins offer the same id."""


class RecipeError(CmpkError):
    """A recipe is unknown or malformed."""


class blame:  # noqa: N801  # used like a function
    """Turn whatever a plugin's code raises into a `PluginError` that names the plugin.

    A context manager. Written out as a class, for it stands around every stream that is decoded.

    Parameters
    ----------
    what : str
        What is run, as ``codec 'lz4'``.
    plugin : str
        The package that it comes with, and its version. Empty for cmpk's own code, whose bugs are
        left as they are.

    Raises
    ------
    PluginError
        For any exception but a `CmpkError`.
    """

    __slots__ = ("_plugin", "_what")

    def __init__(self, what: str, plugin: str) -> None:
        self._what = what
        self._plugin = plugin

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._plugin and isinstance(error, Exception) and not isinstance(error, CmpkError):
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self._what} of {self._plugin} failed: {reason}") from error
