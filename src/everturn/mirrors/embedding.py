"""Functions that turn texts into vectors of what they mean: the user's, or Chroma's own (docs/mirrors.md)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from everturn.errors import EverturnError, Invalid, Unavailable
from everturn.settings import Settings

Vectors = Sequence[Sequence[float]]
Embed = Callable[[Sequence[str]], Vectors]

DEFAULT_NAME = "all-MiniLM-L6-v2"
REBUILD = "everturn mirrors rebuild --only chroma makes it anew"
AT_ONCE = 64  # texts in one call
_MISSING = "search by meaning needs chromadb"
_INSTALL = "pip install 'everturn[chroma]'"


class Embedder:
    """A function that turns texts into vectors, and its name.

    Args:
        name: What a mirror is told apart by: vectors of one function mean nothing to another.
        embed: The function: a vector for each text, all of one length.
    """

    def __init__(self, name: str, embed: Embed) -> None:
        self.name = name
        self._embed = embed

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text.

        Raises:
            Invalid: The function did not return that.
            Unavailable: The function failed.
        """
        found: list[list[float]] = []
        for start in range(0, len(texts), AT_ONCE):
            found += self._some(texts[start : start + AT_ONCE])
        if len({len(vector) for vector in found}) > 1:
            raise self._wrong("vectors of more than one length")
        return found

    def _some(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            vectors = self._embed(texts)
        except EverturnError:
            raise
        except Exception as error:
            raise Unavailable(
                f"the embedding function {self.name} failed: {type(error).__name__}: {_first_line(error)}",
                hint="the default one downloads its model at first use; the setting embedder names another",
            ) from error
        try:
            found = [[float(number) for number in vector] for vector in vectors]
        except (TypeError, ValueError, OverflowError):
            raise self._wrong("something that is no list of vectors") from None
        if len(found) != len(texts):
            raise self._wrong(f"{len(found)} vectors for {len(texts)} texts")
        for vector in found:
            if not vector or not all(map(math.isfinite, vector)):
                raise self._wrong("a vector that is empty, or not of finite numbers")
        return found

    def _wrong(self, what: str) -> Invalid:
        return Invalid(
            f"the embedding function {self.name} returned {what}",
            hint="it takes a list of texts, and returns a list of as many vectors; see docs/mirrors.md",
        )


def open_embedder(settings: Settings) -> Embedder:
    """Return the embedding function that the settings name, or Chroma's own, which is loaded when it is first used.

    Raises:
        Invalid: There is no such function.
    """
    if settings.embedder is None:
        return Embedder(DEFAULT_NAME, DefaultEmbedding())
    module, _, name = settings.embedder.partition(":")
    try:
        found: Any = import_module(module)
        for piece in name.split("."):
            found = getattr(found, piece)
    except Exception as error:
        what = f"{type(error).__name__}: {_first_line(error)}"
        raise Invalid(
            f"the embedding function {settings.embedder} cannot be loaded: {what}",
            hint="the setting embedder is a path such as package.module:function, of something that is installed",
        ) from error
    if not callable(found):
        raise Invalid(f"{settings.embedder} is no function", hint="see the setting embedder in docs/settings.md")
    return Embedder(settings.embedder, found)


class DefaultEmbedding:
    """Chroma's own embedding function. It downloads its model when it is first called on a machine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._function: Any = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector for each text."""
        with self._lock:
            if self._function is None:
                name = "chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2"
                self._function = import_chroma(name).ONNXMiniLM_L6_V2()
            vectors: Vectors = self._function(list(texts))
        return vectors


def import_chroma(module: str) -> Any:
    """Return a module of Chroma, which takes its time to load: so nothing but search by meaning does.

    Raises:
        Invalid: It is not installed, or cannot be loaded.
    """
    try:
        return import_module(module)
    except ImportError:
        raise Invalid(_MISSING, hint=_INSTALL) from None
    except Exception as error:
        raise Invalid(
            f"chromadb cannot be loaded: {type(error).__name__}: {_first_line(error)}",
            hint="it reads a file .env in the current folder and variables of its own: look there",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
