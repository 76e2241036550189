"""What an operator may order of real servers, and which ones are meant."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from ipaddress import ip_address

from xlvs.daemon.keepalived.pool import Pool, ServerKey
from xlvs.errors import XlvsError

# Command: the order that a member has then.
ORDERS = {"drain": "drain", "disable": "disable", "enable": ""}


def find(pools: Mapping[Hashable, Pool], request: Mapping[str, object]) -> list[tuple[Hashable, ServerKey]]:
    """The real servers that a request means by ``server`` and, if given, ``virtual``.

    Both are ADDRESS or ADDRESS:PORT ([ADDRESS]:PORT for IPv6), a virtual server also a group's name
    or fwmark NUMBER. Raises :class:`XlvsError` where there is none.
    """
    wanted = str(request.get("server") or "")
    address, port = _endpoint(wanted)
    virtual = str(request.get("virtual") or "")
    found = [
        (key, name)
        for key, pool in pools.items()
        if not virtual or _is_meant(pool, virtual)
        for name, member in pool.members.items()
        if name[0] == address and port in (None, name[1] or _first_port(pool), member.real.port)
    ]
    if not found:
        place = f" in virtual server {virtual}" if virtual else ""
        raise XlvsError(f"no real server {wanted}{place}")
    return found


def described(pool: Pool, name: ServerKey) -> dict[str, object]:
    """What became of one."""
    member = pool.members[name]
    return {"virtual": pool.label, "server": pool.name(member.real), "order": member.order}


def _is_meant(pool: Pool, text: str) -> bool:
    server = pool.server
    if text in (pool.label, server.name, server.group):
        return True
    if text.split()[:1] == ["fwmark"]:
        return any(str(vip.fwmark) == text.split()[-1] for vip in server.vips if vip.fwmark)
    try:
        address, port = _endpoint(text)
    except XlvsError:
        return False
    return any(vip.address == address and port in (None, vip.port) for vip in server.vips)


def _first_port(pool: Pool) -> int:
    return pool.server.vips[0].port if pool.server.vips else 0


def _endpoint(text: str) -> tuple[object, int | None]:
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    elif " " in text:
        host, _, port = text.partition(" ")
    try:
        return ip_address(host), int(port) if port else None
    except ValueError:
        raise XlvsError(f"'{text}' is no ADDRESS or ADDRESS:PORT of a server") from None
