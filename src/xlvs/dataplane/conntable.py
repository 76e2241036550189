"""Connections in bulk: a block of the table at a time, as columns.

A million connections are listed by operations on columns; values of their own
(:class:`xlvs.model.ConnectionEntry`) are made only where somebody wants them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.tables import Tables
from xlvs.model import AF_INET, L4, ConnectionEntry, Forward

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_SLOTS = 1 << 14  # looked at at once: some megabytes
_ENTRIES = 1 << 12

# All names that a state can have here, and where those of a protocol begin.
_STATES = (*layout.TCP_STATES, *layout.SCTP_STATES, *layout.TEMPLATE_STATES, "UDP", "ERR!")
_SCTP = len(layout.TCP_STATES)
_TEMPLATE = _SCTP + len(layout.SCTP_STATES)
_UDP = _TEMPLATE + len(layout.TEMPLATE_STATES)
_ERROR = _UDP + 1  # of a protocol that has no states (ip_vs_state_name)


@dataclass(frozen=True, slots=True)
class ConnectionBlock:
    """Connections as columns of one length. Addresses have sixteen bytes each, IPv4 in the first four.

    ``state`` are numbers into ``state_names``; ``expires`` are seconds; ``engines`` has name and
    data of the persistence engine for the positions that have one. ``local`` is FULLNAT's, zeros
    and port 0 for other connections.
    """

    family: NDArray[numpy.uint8]
    protocol: NDArray[numpy.uint8]
    client: NDArray[numpy.uint8]
    client_port: NDArray[numpy.uint16]
    virtual: NDArray[numpy.uint8]
    virtual_port: NDArray[numpy.uint16]
    destination_family: NDArray[numpy.uint8]
    destination: NDArray[numpy.uint8]
    destination_port: NDArray[numpy.uint16]
    state: NDArray[numpy.uint8]
    state_names: tuple[str, ...]
    expires: NDArray[numpy.float64]
    template: NDArray[numpy.bool_]
    in_packets: NDArray[numpy.uint32]
    local: NDArray[numpy.uint8]
    local_port: NDArray[numpy.uint16]
    engines: dict[int, tuple[str, str]] = field(default_factory=dict)

    def entries(self) -> Iterator[ConnectionEntry]:
        """The connections one by one."""
        engines = [self.engines.get(number, ("", "")) for number in range(len(self.family))]
        return map(
            ConnectionEntry,
            self.family.tolist(),
            self.protocol.tolist(),
            _addresses(self.client, self.family),
            self.client_port.tolist(),
            _addresses(self.virtual, self.family),
            self.virtual_port.tolist(),
            self.destination_family.tolist(),
            _addresses(self.destination, self.destination_family),
            self.destination_port.tolist(),
            [self.state_names[number] for number in self.state.tolist()],
            self.expires.tolist(),
            self.template.tolist(),
            [name for name, _ in engines],
            [data for _, data in engines],
            self.in_packets.tolist(),
            [
                address if port else b""
                for address, port in zip(
                    _addresses(self.local, self.destination_family), self.local_port.tolist(), strict=True
                )
            ],
            self.local_port.tolist(),
        )


def _addresses(column: NDArray[numpy.uint8], family: NDArray[numpy.uint8]) -> list[bytes]:
    raw, sizes = column.tobytes(), family.tolist()
    return [raw[16 * n : 16 * n + (4 if kind == AF_INET else 16)] for n, kind in enumerate(sizes)]


def read_blocks(tables: Tables) -> Iterator[ConnectionBlock]:
    """The connections in the maps. They come and go meanwhile, as they do in the kernel's listing."""
    import numpy

    settings = tables.settings
    kind = numpy.dtype(layout.ConnRow)
    conns = numpy.frombuffer(tables.memory("conns"), dtype=kind)[: settings.slots]
    dests = numpy.frombuffer(tables.memory("dests"), dtype=numpy.dtype(layout.DestRow))
    for first in range(0, len(conns), _SLOTS):
        part = conns[first : first + _SLOTS]
        slots = numpy.flatnonzero(part["phase"] & layout.PHASE == layout.LIVE)
        rows = part[slots]
        # What became another's while it was copied, ended, or was never in the index is left out.
        sound = (part["phase"][slots] == rows["phase"]) & (rows["state"] != layout.STATE_ENDED)
        sound &= rows["flags"] & layout.CONN_ONE_PACKET == 0
        rows, slots = rows[sound], slots[sound] + first
        if len(rows):
            yield _block(tables, rows, slots, dests["family"], settings.now, settings.hz or 1)


def _block(tables: Tables, rows: Any, slots: Any, families: Any, now: int, hz: int) -> ConnectionBlock:
    import numpy

    idle = (numpy.uint32(now) - rows["seen"]).astype(numpy.int32).clip(0)  # seen after the last tick: 0
    left = rows["timeout"].astype(numpy.int64) - idle
    template = rows["flags"] & layout.CONN_TEMPLATE != 0
    served = rows["dest"] < len(families)  # else it goes where it wanted to go (cache_bypass)
    fullnat = (rows["flags"] & layout.CONN_METHOD == Forward.FULLNAT) & ~template
    with_engine = numpy.flatnonzero(rows["flags"] & layout.CONN_ENGINE)
    return ConnectionBlock(
        rows["family"],
        rows["protocol"],
        rows["caddr"],
        rows["cport"].byteswap(),
        rows["vaddr"],
        rows["vport"].byteswap(),
        numpy.where(served, families[numpy.where(served, rows["dest"], 0)], rows["family"]),
        rows["daddr"],
        rows["dport"].byteswap(),
        _states(rows["protocol"], (rows["state"] & 0xFF).astype(numpy.int64), template),
        _STATES,
        left.clip(0) / hz,
        template,
        rows["in_packets"],
        numpy.where(fullnat[:, None], rows["laddr"], numpy.uint8(0)),
        numpy.where(fullnat, rows["lport"].byteswap(), numpy.uint16(0)),
        {int(number): _engine(tables, int(slots[number])) for number in with_engine},
    )


def _states(protocol: Any, state: Any, template: Any) -> Any:
    """Numbers into _STATES."""
    import numpy

    return numpy.select(
        [template, protocol == L4.TCP, protocol == L4.SCTP, protocol == L4.UDP],
        [
            _TEMPLATE + state.clip(0, 1),
            state.clip(0, _SCTP - 1),
            (_SCTP + state).clip(0, _TEMPLATE - 1),
            _UDP,
        ],
        _ERROR,
    ).astype(numpy.uint8)


def _engine(tables: Tables, slot: int) -> tuple[str, str]:
    """Name and data of the persistence engine of a template; ipvsadm shows the data as it is."""
    found = libbpf.lookup(tables.fd("engine_data"), slot.to_bytes(4, "little"), 256)
    data = found[1 : 1 + found[0]] if found else b""
    return layout.ENGINES[1], data.decode("utf-8", "surrogateescape")


def local_uses(tables: Tables) -> Counter[tuple[int, bytes]]:
    """Connections by row of the service and local address (sixteen bytes) of FULLNAT."""
    import numpy

    settings = tables.settings
    conns = numpy.frombuffer(tables.memory("conns"), dtype=numpy.dtype(layout.ConnRow))[: settings.slots]
    owners = numpy.frombuffer(tables.memory("dests"), dtype=numpy.dtype(layout.DestRow))["service"]
    uses: Counter[tuple[int, bytes]] = Counter()
    for first in range(0, len(conns), _SLOTS):
        part = conns[first : first + _SLOTS]
        mine = (part["phase"] & layout.PHASE == layout.LIVE) & (part["dest"] < len(owners))
        mine &= part["flags"] & (layout.CONN_METHOD | layout.CONN_TEMPLATE) == Forward.FULLNAT
        rows = part[numpy.flatnonzero(mine)]
        addresses = rows["laddr"].tobytes()
        for number, dest in enumerate(rows["dest"].tolist()):
            uses[int(owners[dest]), addresses[16 * number : 16 * number + 16]] += 1
    return uses


def blocks_of(entries: Iterable[ConnectionEntry]) -> Iterator[ConnectionBlock]:
    """Columns of connections that come one by one."""
    iterator = iter(entries)
    while part := list(islice(iterator, _ENTRIES)):
        yield _columns(part)


def _columns(entries: list[ConnectionEntry]) -> ConnectionBlock:
    import numpy

    def numbers(name: str, kind: Any) -> Any:
        return numpy.array([getattr(entry, name) for entry in entries], dtype=kind)

    def addresses(name: str) -> Any:
        raw = b"".join(getattr(entry, name).ljust(16, b"\0") for entry in entries)
        return numpy.frombuffer(raw, dtype=numpy.uint8).reshape(-1, 16)

    names = tuple(dict.fromkeys(entry.state for entry in entries))
    places = {name: number for number, name in enumerate(names)}
    return ConnectionBlock(
        numbers("family", numpy.uint8),
        numbers("protocol", numpy.uint8),
        addresses("client"),
        numbers("client_port", numpy.uint16),
        addresses("virtual"),
        numbers("virtual_port", numpy.uint16),
        numbers("destination_family", numpy.uint8),
        addresses("destination"),
        numbers("destination_port", numpy.uint16),
        numpy.array([places[entry.state] for entry in entries], dtype=numpy.uint8),
        names,
        numbers("expires", numpy.float64),
        numbers("template", numpy.bool_),
        numbers("in_packets", numpy.uint32),
        addresses("local"),
        numbers("local_port", numpy.uint16),
        {
            number: (entry.pe_name, entry.pe_data)
            for number, entry in enumerate(entries)
            if entry.pe_name or entry.pe_data
        },
    )
