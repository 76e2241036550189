"""Where configuration text comes from: the disk, or a mapping in tests."""

from __future__ import annotations

import glob
import itertools
import os
import posixpath
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Protocol

MAXIMUM = 64 * 1024 * 1024  # bytes of one file: what is longer is not a configuration


class Files(Protocol):
    """What the reader asks of a file system. Paths are absolute, or relative to where it was begun."""

    def read(self, path: str) -> str:
        """The text of a regular file; OSError where there is none."""

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, sorted; braces have been expanded before."""

    def directory(self, path: str) -> str:
        """The absolute directory that a file is in."""


class Disk:
    """The real file system. Bytes that are no UTF-8 are kept as surrogates."""

    def read(self, path: str) -> str:
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            text = stream.read(MAXIMUM + 1)
        if len(text) > MAXIMUM:
            raise OSError(f"{path}: longer than {MAXIMUM} bytes")
        return text

    def glob(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern))

    def directory(self, path: str) -> str:
        return os.path.dirname(os.path.abspath(path))


class Memory:
    """Texts by path, for tests and for what was received rather than stored."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = {posixpath.normpath(path): text for path, text in texts.items()}

    def read(self, path: str) -> str:
        try:
            return self._texts[posixpath.normpath(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    def glob(self, pattern: str) -> list[str]:
        slashes = posixpath.normpath(pattern).count("/")
        wanted = posixpath.normpath(pattern)
        return sorted(p for p in self._texts if p.count("/") == slashes and fnmatchcase(p, wanted))

    def directory(self, path: str) -> str:
        return posixpath.dirname(posixpath.normpath(path))


def braces(pattern: str) -> list[str]:
    """csh's brace expansion, "{a,b{c,d}}": in order, unbalanced ones as they stand."""
    start = pattern.find("{")
    depth, cuts = 0, []
    for at in range(start, len(pattern)) if start >= 0 else ():
        if pattern[at] == "{":
            depth += 1
            if depth == 1:
                cuts.append(at)
        elif pattern[at] == "," and depth == 1:
            cuts.append(at)
        elif pattern[at] == "}":
            depth -= 1
            if depth == 0:
                cuts.append(at)
                break
    if start < 0 or depth or len(cuts) < 2:
        return [pattern]
    head, tail = pattern[:start], pattern[cuts[-1] + 1 :]
    parts = [pattern[a + 1 : b] for a, b in itertools.pairwise(cuts)]
    return [whole for part in parts for whole in braces(head + part + tail)]
