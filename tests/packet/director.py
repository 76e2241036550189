"""A director without interfaces: the real programs over maps of their own, one packet a call.

Nothing is pinned or attached. Rules go in through the real transaction. Next hops are
put into the caches just before each packet, so that no route is asked for; tests of
routing take the caches away.
"""

from __future__ import annotations

import ctypes
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.host import BareHost
from xlvs.dataplane.rows import swap16, write_timeouts
from xlvs.dataplane.rules import XdpTransaction
from xlvs.dataplane.tables import (
    TCP_TIMEOUTS,
    UDP_TIMEOUT,
    Tables,
    open_object,
    possible_cpus,
    reset_sysctls,
)
from xlvs.model import Destination, DestinationKey, Forward, Service, ServiceKey, Tunnel

XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
LOOPBACK = 1  # where packets of a test run seem to come in
INSIDE, OUTSIDE = 901, 902  # ifindexes of nobody: redirects end with the verdict

SERVER_MAC, INSIDE_MAC = bytes.fromhex("0200000000b1"), bytes.fromhex("0200000000d2")
ROUTER_MAC, OUTSIDE_MAC = bytes.fromhex("0200000000a1"), bytes.fromhex("0200000000d3")

DIP = {2: ip_address("10.19.0.1").packed, 10: ip_address("fd19::1").packed}


class _Host(BareHost):
    """A machine whose way inside is known; ``local`` are its own addresses."""

    def __init__(self) -> None:
        self.local: set[bytes] = set()

    def is_local(self, address: bytes) -> bool:
        return address in self.local

    def source_towards(self, address: bytes) -> bytes:
        return DIP[2 if len(address) == 4 else 10]


class _Unpinned(Tables):
    """The tables of a loaded object."""

    def __init__(self, loaded: libbpf.BpfObject) -> None:
        self.folder = ""
        self._loaded = loaded
        self._fds = {}
        self._memory = {}

    def fd(self, name: str) -> int:
        return self._loaded.map_fd(name)


@dataclass(frozen=True)
class Server:
    """A destination in short."""

    address: str
    port: int = 80
    method: Forward = Forward.MASQ
    weight: int = 1
    upper: int = 0
    lower: int = 0
    tunnel: Tunnel = field(default_factory=Tunnel)


@dataclass
class Hop:
    """What a cache says of the way out."""

    ifindex: int
    target_mac: bytes
    source_mac: bytes
    mtu: int = 1500
    tags: tuple[int, ...] = ()
    flags: int = 0

    def write(self, row: layout.Hop, now: int) -> None:
        """Put it into a cache, fetched at ``now``."""
        row.ifindex, row.mtu, row.checked = self.ifindex, self.mtu, now
        row.dmac[:] = self.target_mac
        row.smac[:] = self.source_mac
        row.flags = self.flags | len(self.tags) << 4
        for number, tag in enumerate(self.tags):
            row.vlan[number] = swap16(tag)
        row.seq = 2


class Director:
    """The data plane; ``slots`` is the size of its connection table."""

    def __init__(self, slots: int = 1024) -> None:
        self.slots = slots
        self.plane = open_object()
        self.plane.set_max_entries("conns", slots)
        for name in ("conn_index4", "conn_index6"):
            self.plane.set_max_entries(name, 2 * slots)
        self.plane.set_constants(".rodata.sizes", (slots - 1).to_bytes(4, "little"))
        self.plane.load()
        self.tables = _Unpinned(self.plane)
        libbpf.update(self.tables.fd("settings"), bytes(4), bytes(layout.Settings(abi=layout.ABI)))
        for number, name in enumerate(layout.PROGRAMS):
            program = self.plane.program_fd(name).to_bytes(4, "little")
            libbpf.update(self.plane.map_fd("programs"), number.to_bytes(4, "little"), program)
        self.reset()

    def close(self) -> None:
        self.plane.close()

    def reset(self) -> None:
        """No rules, no connections, nothing counted, default settings."""
        self.host = _Host()
        self.inside = Hop(INSIDE, SERVER_MAC, INSIDE_MAC)
        self.outside = Hop(OUTSIDE, ROUTER_MAC, OUTSIDE_MAC)
        self.cached = True
        used = self.tables.settings.members_next * ctypes.sizeof(layout.MemberRow)
        whole = dict.fromkeys(("services", "dests", "loads", "rates", "counters"), 0)
        for name, size in {**whole, "members": used}.items():
            memory = self.tables.memory(name)
            memory[: size or len(memory)] = bytes(size or len(memory))
        ctypes.memset(ctypes.addressof(self.tables.settings), 0, ctypes.sizeof(layout.Settings))
        hashes = {"service_index": 20, "ports": 4, "mark_prefixes": 24, "engine_data": 4, "localities": 24}
        hashes |= {"addresses": 20, "datagrams": 40, "waiting": 40, "path_mtus": 16}
        hashes |= {"clients": 24, "sources": 16}
        for name, size in hashes.items():
            for key in list(libbpf.keys(self.tables.fd(name), size)):
                libbpf.delete(self.tables.fd(name), key)
        self.forget_connections()
        cpus = possible_cpus()
        self.forget_where_to_look()
        for number in range(len(layout.OUTCOMES)):
            libbpf.update(self.tables.fd("outcomes"), number.to_bytes(4, "little"), bytes(8 * cpus))
        self._counted: Counter[str] = Counter()
        settings = self.tables.settings
        settings.abi, settings.cpus, settings.slots = layout.ABI, cpus, self.slots
        settings.hz, settings.icmp_limit, settings.hash_seed = 1000, 1000, 0x1234567
        settings.hop_fresh = 1 << 30  # caches filled by hand stay good, however slow the machine is
        settings.scan_chunk, settings.tick_ns = self.slots, 10_000_000
        settings.tcp_seconds[:] = (TCP_TIMEOUTS[1], TCP_TIMEOUTS[4], UDP_TIMEOUT)
        write_timeouts(settings)
        reset_sysctls(settings)

    def forget_connections(self) -> None:
        """As if no packet had ever come."""
        memory = self.tables.memory("conns")
        memory[:] = bytes(len(memory))
        for name, size in {"conn_index4": 16, "conn_index6": 40}.items():
            for key in list(libbpf.keys(self.tables.fd(name), size)):
                libbpf.delete(self.tables.fd(name), key)

    def forget_where_to_look(self) -> None:
        """Each CPU's scratch as it is at first: the next slot is looked for at the tuple's hash."""
        _, size, _ = libbpf.map_info(self.tables.fd("scratch"))
        libbpf.update(self.tables.fd("scratch"), bytes(4), bytes(possible_cpus() * (size + 7 & ~7)))

    # -- rules -----------------------------------------------------------------

    def transaction(self) -> XdpTransaction:
        return XdpTransaction(self.tables, self.host)

    def service(
        self, vip: str, protocol: int, servers: Sequence[Server], scheduler: str = "rr", port: int = 80
    ) -> ServiceKey:
        """Add a service; its servers are in IPVS's list order: the last one of them is the head."""
        packed = ip_address(vip).packed
        key = ServiceKey(2 if len(packed) == 4 else 10, protocol, packed, port)
        mask = 0xFFFFFFFF if len(packed) == 4 else 128
        self.define(Service(key, scheduler=scheduler, netmask=mask), servers)
        return key

    def define(self, service: Service, servers: Sequence[Server]) -> None:
        """Add a service as it is given, and its servers."""
        change = self.transaction()
        change.add_service(service)
        for server in servers:
            change.add_destination(service.key, _destination(server))
        self.tables.apply(change.changes())

    def edit(self, key: ServiceKey, server: Server) -> None:
        """Change a destination."""
        change = self.transaction()
        change.edit_destination(key, _destination(server))
        self.tables.apply(change.changes())

    def add(self, key: ServiceKey, server: Server) -> None:
        """Add a destination."""
        change = self.transaction()
        change.add_destination(key, _destination(server))
        self.tables.apply(change.changes())

    def remove(self, key: ServiceKey, server: Server) -> None:
        """Delete a destination."""
        change = self.transaction()
        change.delete_destination(key, _destination(server).key)
        self.tables.apply(change.changes())

    # -- packets ---------------------------------------------------------------

    def now(self) -> int:
        """Jiffies, as the programs see them."""
        return libbpf.test_run(self.plane.program_fd("xlvs_clock"), bytes(64))[0]

    def long_now(self) -> int:
        """All 64 bits of them."""
        after = libbpf.test_run(self.plane.program_fd("xlvs_clock"), bytes(64))[1]
        return int.from_bytes(after[:8], "little")

    def run(self, frame: bytes) -> tuple[int, bytes]:
        """Give a frame to the entry program: the verdict, and the frame after it."""
        if self.cached:
            self._fill_caches()
        verdict, after, _ = libbpf.test_run(self.plane.program_fd("xlvs_known"), frame)
        return verdict, after

    def exchange(self, frame: bytes) -> tuple[int, bytes]:
        """Like :meth:`run`, for a frame whose way out ends with nobody: a redirect is a success."""
        verdict, after = self.run(frame)
        assert verdict == XDP_REDIRECT, self.counted()
        return verdict, after

    def _fill_caches(self) -> None:
        ways = [
            *(
                (self.inside, self.tables.dest_row(number).hop)
                for number in range(self.tables.settings.dests_high)
            ),
            *((self.outside, conn.back) for conn in self.connections()),
        ]
        now = self.now()
        for way, cache in ways:
            way.write(cache, now)

    # -- what became of them -------------------------------------------------------

    def counted(self) -> dict[str, int]:
        """Outcomes counted since the last call."""
        totals = Counter(
            {
                name: sum(row)
                for (name, _), row in zip(layout.OUTCOMES, self.tables.outcome_counts(), strict=True)
            }
        )
        change = totals - self._counted
        self._counted = totals
        return dict(change)

    def conn_row(self, slot: int) -> layout.ConnRow:
        """A slot of the connection table, live."""
        return self.tables.row("conns", layout.ConnRow, slot)

    def connections(self) -> list[layout.ConnRow]:
        """The slots that hold a connection, live."""
        return [self.conn_row(slot) for slot in self.live_slots()]

    def live_slots(self) -> Iterator[int]:
        """Their numbers."""
        for slot, phase in enumerate(self.tables.column("conns", layout.ConnRow, "phase", self.slots)):
            if phase & layout.PHASE == layout.LIVE:
                yield slot

    def index_size(self) -> int:
        """Keys in both connection indexes."""
        return sum(
            len(list(libbpf.keys(self.tables.fd(name), size)))
            for name, size in {"conn_index4": 16, "conn_index6": 40}.items()
        )

    def dest_number(self, address: str) -> int:
        """The row of a destination."""
        packed = ip_address(address).packed
        for number in range(self.tables.settings.dests_high):
            row = self.tables.dest_row(number)
            if layout.plain_address(row.address, row.family) == packed and row.flags & layout.DEST_USED:
                return number
        raise KeyError(address)

    def loads(self, address: str) -> tuple[int, int]:
        """Active and inactive connections of a destination."""
        row = self.tables.load_row(self.dest_number(address))
        return row.active, row.inactive


def _destination(server: Server) -> Destination:
    packed = ip_address(server.address).packed
    key = DestinationKey(2 if len(packed) == 4 else 10, packed, server.port)
    return Destination(
        key,
        forward=server.method,
        weight=server.weight,
        upper=server.upper,
        lower=server.lower,
        tunnel=server.tunnel,
    )


def split_metadata(after: bytes) -> tuple[int, bytes]:
    """What XDP wrote before a frame that it handed over, and the frame."""
    (magic,) = struct.unpack("<I", after[:4])
    return magic, after[4:]
