"""Adverts of Debian's keepalived in every form that it has, as they were on the wire: vectors.json.

``python -m tests.interop.vrrp.capture`` (root). vectors.json holds, for each instance by its name, the
IP datagrams of two adverts and of the farewell, in hexadecimal.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from tests.interop.vrrp.record import ETH_P_ALL, MACS, THEIRS, inside, instance_text, two_nodes
from xlvs.vrrp.packet import AUTH_NONE, PROTOCOL, PROTOCOL_AH
from xlvs.vrrp.settings import Settings

VECTORS = Path(__file__).with_name("vectors.json")
SECONDS = 9.5  # until each has spoken twice
UNICAST4: dict[str, object] = {
    "unicast": True,
    "source": ip_address("192.168.99.2"),
    "peers": (ip_address("192.168.99.1"),),
}
UNICAST6: dict[str, object] = {
    "unicast": True,
    "source": ip_address("fd99::2"),
    "peers": (ip_address("fd99::1"),),
}


def instances() -> list[Settings]:
    """What the captured node was told, in the order of its router ids."""
    forms: list[tuple[str, dict[str, object]]] = [
        ("v2", {}),
        ("v2 of two seconds", {"advert": 2.0, "priority": 254}),
        ("v2 PASS", {"auth": "PASS", "key": b"secret12"}),
        ("v2 PASS, short", {"auth": "PASS", "key": b"abc"}),
        ("v2 AH", {"auth": "AH", "key": b"secret12"}),
        ("v2 AH, short", {"auth": "AH", "key": b"abc"}),
        ("v2 unicast", UNICAST4),
        ("v2 unicast AH", {"auth": "AH", "key": b"secret12", **UNICAST4}),
        ("v3", {"version": 3, "advert": 0.25}),
        ("v3 of one centisecond more", {"version": 3, "advert": 1.01}),
        ("v3 unicast", {"version": 3, **UNICAST4}),
        ("v3 unicast, old checksum", {"version": 3, "old_checksum": True, **UNICAST4}),
        ("v6", {"version": 3, "family": 6, "advert": 0.5}),
        ("v6 unicast", {"version": 3, "family": 6, **UNICAST6}),
        ("v2 of twenty addresses", {}),
        ("owner", {"priority": 255}),
    ]
    made = []
    for number, (name, changes) in enumerate(forms, 1):
        count = 20 if "twenty" in name else 1 + number % 2
        stems = ["10.99.{}.{}"] if "v6" not in name else ["fe80::99:{}:{}", "2001:db8:{}::{}"]
        addresses = [ip_address(stem.format(number, i + 1)) for stem in stems for i in range(count)]
        settings = Settings(name=name, router_id=number, priority=200, addresses=tuple(addresses))
        made.append(replace(settings, **changes))  # type: ignore[arg-type]
    return made


def router_id(datagram: bytes) -> int | None:
    """Of an advert; None for whatever else was on the wire."""
    if datagram[0] >> 4 == 6:
        return datagram[41] if datagram[6] == PROTOCOL else None
    return {PROTOCOL: datagram[21], PROTOCOL_AH: datagram[45] if len(datagram) > 45 else AUTH_NONE}.get(
        datagram[9]
    )


def capture() -> None:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("e0", 0))
    wire.settimeout(0.1)
    told = instances()
    seen: dict[int, list[str]] = {settings.router_id: [] for settings in told}
    with tempfile.TemporaryDirectory(prefix="xlvs-vrrp-") as name:
        texts = [instance_text(replace(settings, name=f"v{settings.router_id}")) for settings in told]
        (Path(name) / "conf").write_text("\n".join(("global_defs {", "router_id real", "}", *texts, "")))
        pids = [word for kind in "prcb" for word in (f"-{kind}", f"{name}/{kind}.pid")]
        command = ["keepalived", "-n", "-l", "-P", "-f", f"{name}/conf", *pids]
        process = subprocess.Popen(inside(THEIRS, *command), stdout=subprocess.DEVNULL)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end + 1.5:
            if time.monotonic() > end:
                process.terminate()
            try:
                frame = wire.recv(65535)
            except TimeoutError:
                continue
            if frame[6:12].hex(":") == MACS[THEIRS] and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                number = router_id(frame[14:])
                if number in seen:
                    seen[number].append(frame[14:].hex())
        process.wait(30)
    kept = {settings.name: seen[settings.router_id] for settings in told}
    VECTORS.write_text(json.dumps({name: [*all[:2], all[-1]] for name, all in kept.items()}, indent=1) + "\n")


if __name__ == "__main__":
    if "--inside" in sys.argv:
        capture()
    else:
        two_nodes("tests.interop.vrrp.capture")
