"""Names of hosts and ports, as the C library resolves them; asked once each."""

from __future__ import annotations

import socket

from xlvs.model import AF_INET, L4

_PROTOCOL: dict[int, str] = {L4.TCP: "tcp", L4.UDP: "udp", L4.SCTP: "sctp"}


class Names:
    """The machine's own resolver."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, str | None] = {}
        self._ports: dict[tuple[int, int], str | None] = {}

    def address(self, name: str) -> bytes | None:
        """A host's first IPv4 address (4 bytes), or None."""
        if name in ("", "<broadcast>"):  # names to Python's resolver, not to C's
            return None
        try:
            return socket.inet_aton(socket.gethostbyname(name))
        except (OSError, ValueError):
            return None

    def port(self, name: str, protocol: int) -> int | None:
        """A port's number by its name in /etc/services, or None."""
        if protocol not in _PROTOCOL:
            return None
        try:
            return socket.getservbyname(name, _PROTOCOL[protocol])
        except (OSError, ValueError):
            return None

    def host_name(self, family: int, address: bytes) -> str | None:
        """The name of an address, or None."""
        if address not in self._hosts:
            try:
                name = socket.gethostbyaddr(socket.inet_ntop(family, address))[0]
                self._hosts[address] = name
            except OSError:
                self._hosts[address] = None
        return self._hosts[address]

    def port_name(self, port: int, protocol: int) -> str | None:
        """The name of a port in /etc/services, or None."""
        key = (port, protocol)
        if key not in self._ports:
            try:
                name = socket.getservbyport(port, _PROTOCOL[protocol])
                self._ports[key] = name
            except (OSError, KeyError, ValueError):
                self._ports[key] = None
        return self._ports[key]


def endpoint(family: int, address: bytes, port: int, protocol: int, names: Names | None) -> str:
    """An address and port as ipvsadm prints them, IPv6 in brackets; with names unless None."""
    host = names.host_name(family, address) if names else None
    if host is None:
        host = socket.inet_ntop(family, address)
    service = names.port_name(port, protocol) if names else None
    text = f"{host}:{service or port}" if family == AF_INET else f"[{host}]:{service or port}"
    return text[:59]  # the real program's buffer
