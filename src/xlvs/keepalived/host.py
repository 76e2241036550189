"""What of the machine a configuration is measured against: interfaces, users, programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: its flags as far as VRRP asks for them."""

    name: str
    loopback: bool = False
    multicast: bool = True


class Host(Protocol):
    """Questions of the parser about the machine; answers may change between two readings."""

    def link(self, name: str) -> Link | None:
        """An interface by name, or None."""

    def user(self, name: str) -> bool:
        """Whether a user exists; keepalived takes no numbers here."""

    def group(self, name: str) -> bool:
        """Whether a group exists."""

    def program(self, path: str) -> bool:
        """Whether a script can be run: a regular, executable file, looked for in PATH if it has no /."""


@dataclass(slots=True)
class AnyHost:
    """A machine with everything that is asked for: a configuration judged for itself."""

    missing_links: frozenset[str] = field(default_factory=frozenset)

    def link(self, name: str) -> Link | None:
        return None if name in self.missing_links else Link(name, loopback=name == "lo")

    def user(self, name: str) -> bool:
        return bool(name)

    def group(self, name: str) -> bool:
        return bool(name)

    def program(self, path: str) -> bool:
        return bool(path)
