"""What an engine asks of the machine's network: the port that network/ fills."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VlanDevice:
    """A VLAN device: where its frames leave, and their tags (id, EtherType), outer first."""

    ifindex: int
    parent: int
    tags: tuple[tuple[int, int], ...]


class Host(Protocol):
    """Addresses and routes of the current network namespace, as they are now.

    Addresses are packed network-order bytes, 4 or 16 of them.
    """

    def is_local(self, address: bytes) -> bool:
        """Whether an address is this machine's own."""

    def is_broadcast(self, address: bytes) -> bool:
        """Whether an IPv4 address is the broadcast address of one of this machine's networks."""

    def interface_mtu(self, name: str) -> int | None:
        """The MTU in bytes of an interface by its name, or None where there is none."""

    def multicast_error(self, interface: str, group: bytes, *, sending: bool) -> int:
        """The errno of sending to a multicast group by an interface, else of joining it there, or 0."""

    def source_towards(self, address: bytes) -> bytes | None:
        """The source address the kernel would choose towards an address; None without a route."""

    def mtu(self, ifindex: int) -> int:
        """An interface's MTU in bytes, at most 65535."""

    def transmits_back(self, ifindex: int) -> bool:
        """Whether what XDP sends back out of this interface (XDP_TX) leaves at once."""

    def vlan_devices(self, parents: Iterable[int]) -> list[VlanDevice]:
        """The VLAN devices on top of these interfaces (ifindexes), of one or two tags."""

    def keep_resolved(self, addresses: Iterable[bytes]) -> None:
        """Have the kernel keep the link addresses towards these destinations known, and no others."""

    def release(self) -> None:
        """Undo :meth:`keep_resolved`, whoever called it."""


class BareHost:
    """A machine without addresses, for tests."""

    def is_local(self, address: bytes) -> bool:
        """Nothing is local."""
        del address
        return False

    def is_broadcast(self, address: bytes) -> bool:
        """There are no networks."""
        del address
        return False

    def interface_mtu(self, name: str) -> int | None:
        """There are no interfaces."""
        del name
        return None

    def multicast_error(self, interface: str, group: bytes, *, sending: bool) -> int:
        """Nothing stands in the way."""
        del interface, group, sending
        return 0

    def source_towards(self, address: bytes) -> bytes | None:
        """Nothing is reachable."""
        del address
        return None

    def mtu(self, ifindex: int) -> int:
        """Ethernet's."""
        del ifindex
        return 1500

    def transmits_back(self, ifindex: int) -> bool:
        """As a network card's driver does."""
        del ifindex
        return True

    def vlan_devices(self, parents: Iterable[int]) -> list[VlanDevice]:
        """There are none."""
        del parents
        return []

    def keep_resolved(self, addresses: Iterable[bytes]) -> None:
        """Nothing to resolve."""

    def release(self) -> None:
        """Nothing was resolved."""
