"""A director alone in a network namespace, for what needs no other machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xlvs.lab import build, namespaces


@dataclass(frozen=True)
class Alone:
    """The namespace of that name."""

    name: str

    @contextmanager
    def made(self) -> Iterator[None]:
        """There for a block, with an interface eth0; taken down after it, whatever happens in it."""
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        try:
            try:
                self.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
                yield
            finally:
                self.xlvs("down")
        finally:
            subprocess.run(["ip", "netns", "delete", self.name], check=True)

    def run(self, *words: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Type a command there; it must succeed, unless ``check`` says otherwise."""
        command = namespaces.typed_inside(self.name, words)
        return subprocess.run(command, capture_output=True, text=True, check=check, input=text)

    def xlvs(self, *words: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Type an xlvs command."""
        return self.run(*build.xlvs(*words), check=check, text=text)

    def python(self, code: str, *arguments: str, text: str = "") -> str:
        """A few lines of Python, and what they print."""
        return self.run(sys.executable, "-c", code, *arguments, text=text).stdout
