"""What ``up`` changes on lo, and ``down`` gives back.

``accept_local``, so that answers of the director itself, from the VIP to the VIP, are believed.
``forwarding``, because the data plane asks for the way to a real server as if it came from lo:
like IPVS, which sends what it has taken as its own, wherever forwarding is off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_CONF = "/proc/sys/net"
_SWITCHES = {
    "ipv4/conf/lo/accept_local": "the director itself will reach its VIPs only if it is 1",
    "ipv4/conf/lo/forwarding": "IPv4 packets will reach real servers only if it is 1",
    "ipv6/conf/lo/forwarding": "IPv6 packets will reach real servers only if it is 1",
}


def prepare(note: str) -> list[str]:
    """Set the switches; what they were is first written into the file ``note``.

    Returns what could not be done.
    """
    warnings = []
    noted = _noted(note)
    for name, consequence in _SWITCHES.items():
        path = f"{_CONF}/{name}"
        try:
            with open(path, "r+") as switch:
                before = switch.read().strip()
                if before == "1":
                    continue
                if name not in noted:
                    with open(note, "a") as file:
                        file.write(f"{name} {before}\n")
                switch.seek(0)
                switch.write("1")
        except FileNotFoundError:
            continue  # no such family here
        except OSError as error:
            warnings.append(f"cannot write {path} ({error.strerror}): {consequence}")
    return warnings


def restore(note: str) -> None:
    """Set the switches as they were before."""
    noted = _noted(note)
    for name, value in noted.items():
        _write(f"{_CONF}/{name}", value)
    if noted:
        os.unlink(note)


def _noted(note: str) -> dict[str, str]:
    try:
        with open(note) as file:
            return dict(line.split() for line in file)
    except FileNotFoundError:
        return {}


def hold() -> None:
    """Set them again where the machine's own switch (ip_forward) has swept over lo's since."""
    for name in _SWITCHES:
        _write(f"{_CONF}/{name}", "1")


def _write(path: str, value: str) -> None:
    try:
        with open(path, "r+") as switch:
            if switch.read().strip() != value:
                switch.seek(0)
                switch.write(value)
    except OSError:
        pass  # gone, or not ours to write: `prepare` has said so


def forwarding() -> dict[str, bool]:
    """Whether the kernel forwards, by family: without it no answer of NAT's real servers passes."""
    paths: Sequence[tuple[str, str]] = (
        ("ipv4", "/proc/sys/net/ipv4/ip_forward"),
        ("ipv6", "/proc/sys/net/ipv6/conf/all/forwarding"),
    )
    result = {}
    for family, path in paths:
        try:
            with open(path) as text:
                result[family] = text.read().strip() != "0"
        except OSError:
            result[family] = False
    return result
