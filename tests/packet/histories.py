"""Random histories of a service, lived through by the programs and by a model side by side."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence
from ipaddress import ip_address

from tests.packet import models
from tests.packet.director import Director
from tests.packet.frames import UDP, Datagram
from tests.packet.models import MODELS, Ask, Locality, Model
from xlvs.dataplane import layout, libbpf
from xlvs.dataplane.rows import service_wire_key
from xlvs.model import Destination, DestinationKey, Forward, Service, ServiceFlag, ServiceKey

WEIGHTS = (0, 1, 1, 2, 3, 4, 5, 6, 10, 100)
FLAGS = {"fallback": ServiceFlag.SCHED1, "port": ServiceFlag.SCHED2}
VIPS = {2: ["10.80.0.1", "10.80.0.2", "10.81.7.9"], 10: ["fd80::1", "fd80::2", "fd81:7::9"]}
HZ = 1000
ROOM = 800  # connections until they are forgotten
EXPIRATION = 25  # seconds, between all sums of the waits below


def packed(address: str) -> bytes:
    return ip_address(address).packed


def age(director: Director, seconds: int) -> None:
    """Let what lblcr remembers grow older."""
    map_fd = director.tables.fd("localities")
    for key in list(libbpf.keys(map_fd, ctypes.sizeof(layout.LocalityKey))):
        found = libbpf.lookup(map_fd, key, ctypes.sizeof(layout.Locality))
        if found:
            entry = layout.Locality.from_buffer_copy(found)
            entry.modified = (entry.modified - seconds * HZ) & 0xFFFFFFFF
            libbpf.update(map_fd, key, bytes(entry))


class History:
    """One service and its model, if it has one. Servers are at one address each; a test chooses the steps."""

    def __init__(
        self,
        director: Director,
        scheduler: str,
        weights: Sequence[int],
        *,
        family: int = 2,
        flags: frozenset[str] = frozenset(),
        protocol: int = UDP,
    ) -> None:
        director.reset()
        director.cached = False  # where the packet goes is seen from the loads
        self.director, self.family, self.protocol = director, family, protocol
        self.addresses = VIPS[family]
        self.key = ServiceKey(family, protocol, packed(self.addresses[0]), 80)
        self.known: list[models.Server] = []  # in the order of their rows
        self.asked = 0
        bits = sum((FLAGS[flag] for flag in flags), ServiceFlag(0))
        change = director.transaction()
        mask = 0xFFFFFFFF if family == 2 else 128
        change.add_service(Service(self.key, scheduler=scheduler, flags=bits, netmask=mask))
        director.tables.apply(change.changes())
        self.model: Model = MODELS.get(scheduler, Model)([], flags)  # twos has none
        if isinstance(self.model, Locality):
            self.model.expiration = EXPIRATION
            director.tables.settings.sysctl.lblcr_expiration = EXPIRATION
        for number in self._service_numbers():
            libbpf.update(director.tables.fd("service_index"), number, bytes(4))
        for weight in weights:
            self.add(self.new_server(weight))

    def _service_numbers(self) -> list[bytes]:
        """Keys of all addresses, for the one row: as a service by mark has them."""
        keys = [ServiceKey(self.family, self.protocol, packed(vip), 80) for vip in self.addresses]
        return [service_wire_key(key) for key in keys]

    # -- rules ---------------------------------------------------------------------

    def new_server(self, weight: int) -> models.Server:
        number = len(self.known) + 1
        address = f"10.19.{number >> 8}.{number & 255}" if self.family == 2 else f"fd19::{number:x}"
        return models.Server(address, 8000 + number, weight)

    def _change(self, method: str, server: models.Server) -> None:
        key = DestinationKey(self.family, packed(server.address), server.port)
        destination = Destination(key, forward=Forward.ROUTE, weight=server.weight)
        change = self.director.transaction()
        getattr(change, method)(self.key, key if method == "delete_destination" else destination)
        self.director.tables.apply(change.changes())
        self.model.changed()

    def add(self, server: models.Server) -> None:
        """At the head of the list; one that was there before is the same one again."""
        if server not in self.known:
            self.known.append(server)
        server.present, server.last_weight = True, server.weight
        self.model.servers.insert(0, server)
        self._change("add_destination", server)

    def remove(self, server: models.Server) -> None:
        position = self.model.servers.index(server)
        del self.model.servers[position]
        server.present = False
        self.model.removed(server, position)
        self._change("delete_destination", server)

    def weigh(self, server: models.Server, weight: int) -> None:
        server.weight = weight
        server.last_weight = weight or server.last_weight
        self._change("edit_destination", server)

    # -- loads, thresholds, time -----------------------------------------------------

    def settle(self) -> None:
        """Put the model's loads and thresholds where the programs read them."""
        for number, server in enumerate(self.known):
            row = self.director.tables.load_row(number)
            row.active, row.inactive = server.active, server.inactive
            row.flags = layout.LOAD_OVERLOADED if server.busy else 0
        self.director.tables.service_row(0).flags |= layout.SERVICE_THRESHOLDS

    def wait(self, seconds: int) -> None:
        """Let lblcr's sets grow older."""
        assert isinstance(self.model, Locality)
        self.model.now += seconds
        age(self.director, seconds)

    # -- choices ---------------------------------------------------------------------

    def ask(self, ask: Ask) -> models.Server | None:
        """Open a connection; who got it, by the programs."""
        self.asked += 1
        if self.asked % ROOM == 0:
            self.director.forget_connections()
        self.settle()
        before = self.loads()
        protocol = self.protocol
        self.director.run(Datagram(ask.source, ask.target, ask.sport, protocol=protocol).frame())
        got = [now - then for now, then in zip(self.loads(), before, strict=True)]
        assert sum(got) in (0, 1), self.director.counted()
        return self.known[got.index(1)] if any(got) else None

    def loads(self) -> list[int]:
        tables, known = self.director.tables, len(self.known)
        columns = [tables.column("loads", layout.LoadRow, name, known) for name in ("active", "inactive")]
        return [sum(pair) for pair in zip(*columns, strict=True)]

    def check(self, ask: Ask) -> None:
        """The programs and the model choose alike."""
        wanted = self.model.choose(ask)
        found = self.ask(ask)
        assert found is wanted, f"{ask}: {found}, should be {wanted} of {self.model.servers}"


def any_client(chance: random.Random, family: int) -> tuple[str, int]:
    """An address and a port that no connection had yet (as good as)."""
    bits = chance.getrandbits(24 if family == 2 else 100)
    base = 0x0B000000 if family == 2 else 0xFD18 << 112
    return str(ip_address(base + bits)), chance.randint(1024, 65535)


def live(history: History, chance: random.Random, steps: int) -> None:
    """So many random steps: mostly choices, and everything that may change between them."""
    model = history.model
    for _ in range(steps):
        for server in history.known:
            if chance.random() < 0.5:
                server.active = chance.choice([0, 0, 1, 2, 3, 5, 10, 11, 300])
                server.inactive = chance.choice([0, 0, 1, 255, 256, 257, 100_000])
            server.busy = chance.random() < 0.15
        source, sport = any_client(chance, history.family)
        history.check(Ask(source, sport, chance.choice(history.addresses)))
        what = chance.random()
        gone = [server for server in history.known if not server.present]
        if what < 0.08 and model.servers:
            history.weigh(chance.choice(model.servers), chance.choice(WEIGHTS))
        elif what < 0.14 and model.servers:
            history.remove(chance.choice(model.servers))
        elif what < 0.2:
            server = chance.choice(gone) if gone and chance.random() < 0.5 else history.new_server(0)
            server.weight = chance.choice(WEIGHTS)
            history.add(server)
        elif what < 0.3 and isinstance(model, Locality):
            history.wait(chance.choice([10, 30]))
