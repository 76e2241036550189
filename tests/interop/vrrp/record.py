"""Holds every dialogue with Debian's keepalived, and writes down what it did: recorded.json beside this.

``python -m tests.interop.vrrp.record`` (root). keepalived runs in a network namespace of its own; the
other end of its wire is ours: it forges the peers and notes each packet that comes.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tests.interop.vrrp.dialogues import (
    END,
    LOWER,
    NODE,
    Dialogue,
    Tell,
    Write,
    advert,
    dialogues,
    group_address,
)
from xlvs.vrrp.packet import Advert, PacketError, Received, datagram, message, parse4, parse6
from xlvs.vrrp.settings import Settings, Track

RECORDED = Path(__file__).with_name("recorded.json")
OURS, THEIRS = "xlvs-vr-us", "xlvs-vr-them"
MACS = {OURS: "02:00:00:00:00:01", THEIRS: "02:00:00:00:00:02"}
ETH_P_ALL = 3
TOGETHER = 0.05  # seconds within which announcements are one burst


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(namespace: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *words]


# -- the configuration ----------------------------------------------------------------


def tracks(entries: tuple[Track, ...]) -> list[str]:
    lines = [f"{t.name} weight {t.weight}{' reverse' if t.reverse else ''}" for t in entries]
    return ["track_file {", *lines, "}"] if lines else []


def instance_text(settings: Settings) -> str:
    again = settings.announcements
    lines = [
        f"vrrp_instance {settings.name} {{",
        "interface e0",
        f"state {'MASTER' if settings.master else 'BACKUP'}",
        f"virtual_router_id {settings.router_id}",
        f"priority {settings.priority}",
        f"version {settings.version}",
        f"advert_int {settings.advert:g}",
        f"down_timer_adverts {settings.down_adverts}",
        f"garp_master_delay {again.master_delay:g}",
        f"garp_master_repeat {again.master_repeat}",
        f"garp_master_refresh {again.master_refresh:g}",
        f"garp_master_refresh_repeat {again.master_refresh_repeat}",
        f"garp_lower_prio_delay {again.lower_priority_delay:g}",
        f"garp_lower_prio_repeat {again.lower_priority_repeat}",
        f"lower_prio_no_advert {'on' if settings.lower_priority_no_advert else 'off'}",
        f"higher_prio_send_advert {'on' if settings.higher_priority_send_advert else 'off'}",
        f"skip_check_adv_addr {'on' if settings.skip_known_addresses else 'off'}",
        f"notify_priority_changes {'on' if settings.notify_priority else 'off'}",
        *tracks(settings.tracks),
    ]
    if not settings.preempt:
        lines.append("nopreempt")
    if settings.preempt_delay:
        lines.append(f"preempt_delay {settings.preempt_delay:g}")
    if settings.auth:
        key = settings.key.decode()
        lines += ["authentication {", f"auth_type {settings.auth}", f"auth_pass {key}", "}"]
    if settings.unicast:
        lines += [f"unicast_src_ip {settings.source}", "unicast_peer {", *map(str, settings.peers), "}"]
    if settings.old_checksum:
        lines.append("old_unicast_checksum")
    lines += ["virtual_ipaddress {", *map(str, settings.addresses), "}", "}"]
    return "\n".join(lines)


def files_of(dialogue: Dialogue) -> set[str]:
    tracked = [track for settings in dialogue.instances for track in settings.tracks]
    return {track.name for track in (*tracked, *(dialogue.group.tracks if dialogue.group else ()))}


def configuration(told: list[Dialogue], folder: Path) -> str:
    parts = [
        "global_defs {",
        "router_id real",
        f"vrrp_notify_fifo {folder}/fifo",
        "vrrp_garp_interval 0",
        "}",
    ]
    for name in sorted(set().union(*map(files_of, told))):
        parts += [f"track_file {name} {{", f'file "{folder}/{name}"', "weight 1", "init_file 0", "}"]
    for dialogue in told:
        parts += [instance_text(settings) for settings in dialogue.instances]
        if dialogue.group:
            members = [settings.name for settings in dialogue.instances]
            parts += [f"vrrp_sync_group {dialogue.group.name} {{", "group {", *members, "}"]
            parts += [*tracks(dialogue.group.tracks), "}"]
    return "\n".join(parts) + "\n"


# -- the wire -------------------------------------------------------------------------


def frame(dialogue: Dialogue, tell: Tell) -> bytes:
    settings = dialogue.instances[tell.instance]
    group, made = group_address(settings), advert(dialogue, tell)
    mac = bytes.fromhex(MACS[OURS].replace(":", ""))
    if isinstance(tell.source, IPv6Address):
        inner = spoilt(tell, message(made, tell.source, group))
        head = bytes.fromhex("6c000000") + len(inner).to_bytes(2, "big") + bytes((112, tell.ttl))
        body = head + tell.source.packed + group.packed + inner
        return bytes.fromhex("333300000012") + mac + b"\x86\xdd" + body
    assert isinstance(group, IPv4Address)
    whole = spoilt_datagram(tell, made, tell.source, group)
    return bytes.fromhex("01005e000012") + mac + b"\x08\x00" + whole


def spoilt(tell: Tell, inner: bytes) -> bytes:
    if tell.spoil == "checksum":
        return inner[:6] + bytes((inner[6] ^ 1,)) + inner[7:]
    if tell.spoil == "tail":
        return inner + bytes(4)
    if tell.spoil == "short":
        return inner[:-4]
    return inner


def spoilt_datagram(tell: Tell, made: Advert, source: IPv4Address, group: IPv4Address) -> bytes:
    whole = datagram(made, source, group, ttl=tell.ttl)
    inner = spoilt(tell, whole[20:])
    if len(inner) == len(whole) - 20:
        return whole[:20] + inner
    from xlvs.vrrp.packet import checksum

    head = whole[:2] + (20 + len(inner)).to_bytes(2, "big") + whole[4:10] + bytes(2) + whole[12:20]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + inner


@dataclass(slots=True)
class Heard:
    """What a node did in one dialogue: [seconds, instance, ...] each."""

    sent: list[list[object]] = field(default_factory=list)  # priority, AH sequence
    announced: list[list[object]] = field(default_factory=list)  # how often
    notified: list[list[object]] = field(default_factory=list)  # event and priority

    def announce(self, at: float, instance: str) -> None:
        last = next((each for each in reversed(self.announced) if each[1] == instance), None)
        if last is not None and at - float(str(last[0])) < TOGETHER:
            last[2] = int(str(last[2])) + 1
        else:
            self.announced.append([at, instance, 1])


class Recorder:
    def __init__(self, told: list[Dialogue], folder: Path) -> None:
        self.told, self.folder = told, folder
        self.heard = {dialogue.name: Heard() for dialogue in told}
        self.by_id = {s.router_id: (self.heard[d.name], s.name) for d in told for s in d.instances}
        self.by_name = {s.name: self.heard[d.name] for d in told for s in d.instances}
        self.by_name |= {d.group.name: self.heard[d.name] for d in told if d.group}
        self.by_address = {
            address: (self.heard[d.name], s.name)
            for d in told
            for s in d.instances
            for address in s.addresses
            if not address.is_link_local
        }
        self.start: float | None = None

    def now(self) -> float:
        assert self.start is not None
        return round(time.monotonic() - self.start, 3)

    def see(self, data: bytes) -> None:
        if data[6:12].hex(":") != MACS[THEIRS] or self.start is None:
            return
        kind, body = data[12:14], data[14:]
        try:
            if kind == b"\x08\x00" and body[9] in (51, 112):
                self.note(parse4(body))
            elif kind == b"\x86\xdd" and body[6] == 112:
                source, group = IPv6Address(body[8:24]), IPv6Address(body[24:40])
                length = int.from_bytes(body[4:6], "big")
                self.note(parse6(body[40 : 40 + length], source, group, body[7]))
            elif kind == b"\x08\x06":
                self.note_address(IPv4Address(body[14:18]))
            elif kind == b"\x86\xdd" and body[6] == 58 and body[40] == 136:
                self.note_address(IPv6Address(body[48:64]))
        except PacketError as error:
            raise SystemExit(f"keepalived sent what is no VRRP to us: {error}: {data.hex()}") from error

    def note(self, packet: Received) -> None:
        assert packet.checksum_good
        if packet.router_id in self.by_id:
            heard, name = self.by_id[packet.router_id]
            heard.sent.append([self.now(), name, packet.priority, packet.sequence])

    def note_address(self, address: IPv4Address | IPv6Address) -> None:
        if address in self.by_address:
            heard, name = self.by_address[address]
            heard.announce(self.now(), name)

    def notice(self, text: str) -> None:
        for line in text.splitlines():
            found = re.fullmatch(r'(INSTANCE|GROUP) "(\w+)" (\w+) (\d+)', line)
            if found is None:
                raise SystemExit(f"an unknown line of the fifo: {line}")
            if self.start is None:
                self.start = time.monotonic()
            name, event, priority = found.group(2, 3, 4)
            self.by_name[name].notified.append([self.now(), name, event, int(priority)])

    def hold(self, wire: socket.socket, stop: subprocess.Popen[bytes], fifo: int) -> None:
        events = [(dialogue, event) for dialogue in self.told for event in dialogue.events]
        agenda = sorted(events, key=lambda each: each[1].at)
        selector = selectors.DefaultSelector()
        selector.register(wire, selectors.EVENT_READ, "wire")
        selector.register(fifo, selectors.EVENT_READ, "fifo")
        stopped = False
        while self.start is None or self.now() < END + 3:
            while self.start is not None and agenda and agenda[0][1].at <= self.now():
                dialogue, event = agenda.pop(0)
                if isinstance(event, Write):
                    (self.folder / event.file).write_text(f"{event.value}\n")
                else:
                    wire.send(frame(dialogue, event))
            if self.start is not None and not stopped and self.now() >= END:
                stopped = True
                stop.terminate()
            for key, _ in selector.select(0.002):
                if key.data == "wire":
                    self.see(wire.recv(65535))
                else:
                    self.notice(os.read(fifo, 65536).decode())


def record() -> None:
    told = dialogues()
    with tempfile.TemporaryDirectory(prefix="xlvs-vrrp-") as name:
        folder = Path(name)
        (folder / "conf").write_text(configuration(told, folder))
        os.mkfifo(folder / "fifo")
        for file in set().union(*map(files_of, told)):
            (folder / file).write_text("0\n")
        fifo = os.open(folder / "fifo", os.O_RDWR | os.O_NONBLOCK)
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        wire.bind(("e0", 0))
        pids = [word for kind in "prcb" for word in (f"-{kind}", f"{folder}/{kind}.pid")]
        command = inside(THEIRS, "keepalived", "-n", "-l", "-D", "-G", "-P", "-f", f"{folder}/conf", *pids)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                recorder = Recorder(told, folder)
                recorder.hold(wire, process, fifo)
            finally:
                process.terminate()
                process.wait(30)
        if "--log" in sys.argv:
            print((folder / "log").read_text())
    made = {
        d.name: {key: getattr(recorder.heard[d.name], key) for key in ("sent", "announced", "notified")}
        for d in told
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(heard)}" for name, heard in made.items())
    RECORDED.write_text("{\n" + lines + "\n}\n")


def two_nodes(module: str) -> None:
    """Runs ``module`` --inside our end of a wire whose other end is a node of its own."""
    ip("netns", "add", OURS)
    ip("netns", "add", THEIRS)
    try:
        peer = ["peer", "name", "e0", "address", MACS[OURS], "netns", OURS]
        ip("-n", THEIRS, "link", "add", "e0", "address", MACS[THEIRS], "type", "veth", *peer)
        for namespace, address, address6 in ((OURS, LOWER, "fd99::1"), (THEIRS, NODE, "fd99::2")):
            subprocess.run(inside(namespace, "sysctl", "-qw", "net.ipv6.conf.e0.accept_dad=0"), check=True)
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "e0")
            ip("-n", namespace, "addr", "add", f"{address6}/64", "dev", "e0", "nodad")
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "link", "set", "e0", "up")
        time.sleep(2)
        again = [sys.executable, "-m", module, "--inside", *sys.argv[1:]]
        subprocess.run(inside(OURS, *again), check=True)
    finally:
        ip("netns", "del", OURS)
        ip("netns", "del", THEIRS)


if __name__ == "__main__":
    if "--inside" in sys.argv:
        record()
    else:
        two_nodes("tests.interop.vrrp.record")
