"""What an engine asks of the machine's network: the port that network/ fills."""

from __future__ import annotations

from typing import Protocol


class Host(Protocol):
    """Addresses and routes of the current network namespace, as they are now."""

    def is_local(self, address: bytes) -> bool:
        """Whether an address (4 or 16 bytes) is this machine's own."""

    def source_towards(self, address: bytes) -> bytes | None:
        """The source address the kernel would choose towards an address; None without a route."""


class BareHost:
    """A machine without addresses, for tests."""

    def is_local(self, address: bytes) -> bool:  # noqa: ARG002 - the port's signature
        """Nothing is local."""
        return False

    def source_towards(self, address: bytes) -> bytes | None:  # noqa: ARG002
        """Nothing is reachable."""
        return None
