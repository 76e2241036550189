"""Sequences of ipvsadm command lines from a seed: an operator's day, with accidents.

A sequence starts from an empty table and works on a few services and servers, so that
what it adds is often there already, and what it changes sometimes is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.conformance.fuzz import vocabulary as words
from tests.conformance.fuzz.typist import Typist
from tests.conformance.fuzz.vocabulary import COMMANDS, OPTIONS, SPELLINGS, VALUES, Item, Line

SEQUENCE = 100  # commands
# Standard input that stands for what the last command marked ``save`` printed.
SAVED = None


@dataclass(frozen=True)
class Command:
    """One run: arguments without the program's name, and standard input.

    ``save`` says that what it prints is what SAVED stands for from here on.
    """

    arguments: tuple[str, ...]
    stdin: str | None = ""
    save: bool = False


@dataclass(frozen=True)
class Service:
    """How commands name a service: an option, its value, ``-6`` for a mark of IPv6."""

    option: str
    value: str
    family: int = 4
    ipv6_mark: bool = False

    def items(self) -> Line:
        items = [Item(self.option, self.value)]
        return [*items, Item("ipv6")] if self.ipv6_mark else items


class Author:
    """Writes one sequence."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        hemisphere = self._random.randrange(2)
        self._vips4 = words.VIPS4[hemisphere]
        self._odd_vips4 = words.ODD_VIPS4[hemisphere]
        self._services = [self._new_service() for _ in range(self._random.randint(3, 8))]
        self._servers4 = self._sample((*words.SERVERS4, *words.ODD_SERVERS4), 5)
        self._servers6 = self._sample((*words.SERVERS6, *words.ODD_SERVERS6), 4)
        self._typist = Typist(self._random, self._random.choice((0.05, 0.2, 0.4)))
        self._added: list[Service] = []
        self._servers: dict[Service, list[tuple[str, str]]] = {}  # address and method

    def pair(self, command: str, option: str) -> Command:
        """A command that is as it should be, but for one option of any kind."""
        usual: dict[str, Callable[[], Line]] = {
            "add-service": self._add_service,
            "edit-service": self._edit_service,
            "delete-service": self._delete_service,
            "add-server": self._add_server,
            "edit-server": self._edit_server,
            "delete-server": self._delete_server,
            "set": lambda: [Item("set"), *(Item("", value) for value in words.TIMEOUTS[:3])],
        }
        bare = Item(command, "master" if SPELLINGS[command][2] else None)
        items = usual[command]() if command in usual else [bare]
        values = VALUES.get(option)
        items.append(Item(option, values[0] if values else None))
        return Command(tuple(self._typist.spell(items)))

    def commands(self, count: int = SEQUENCE) -> list[Command]:
        """Commands of every kind; a listing that is fed back counts as three."""
        made = [self._first_service(service) for service in self._services if self._chance(0.7)]
        while len(made) < count:
            made += self._next()
        return made[:count]

    # -- what is done --------------------------------------------------------

    def _next(self) -> list[Command]:
        kinds = {
            self._add_service: 14,
            self._edit_service: 8,
            self._delete_service: 3,
            self._add_server: 30,
            self._edit_server: 14,
            self._delete_server: 6,
            self._list: 10,
            self._zero: 3,
            self._timeouts: 3,
            self._daemon: 7,
            self._rare: 2,
        }
        if self._chance(0.05):
            return [self._restore()]
        if self._chance(0.015):
            return self._round_trip()
        kind = self._random.choices(list(kinds), list(kinds.values()))[0]
        return [Command(tuple(self._typist.spell(self._typist.accident(kind()))))]

    def _first_service(self, service: Service) -> Command:
        self._added.append(service)
        return Command(
            tuple(
                self._typist.spell([Item("add-service"), *service.items(), *self._service_options(service)])
            )
        )

    def _add_service(self) -> Line:
        service = self._random.choice(self._services)
        if service not in self._added:
            self._added.append(service)
        return self._shuffled([Item("add-service"), *service.items(), *self._service_options(service)])

    def _edit_service(self) -> Line:
        service = self._service()
        return self._shuffled([Item("edit-service"), *service.items(), *self._service_options(service)])

    def _delete_service(self) -> Line:
        service = self._service()
        if service in self._added and self._chance(0.9):
            self._added.remove(service)
        return [Item("delete-service"), *service.items()]

    def _add_server(self) -> Line:
        service = self._service()
        server = self._server(service)
        method = self._method(service, server)
        if server in (*words.BAD_SERVERS4, *words.BAD_SERVERS6):
            return self._server_line("add-server", service, server, method)
        # Only NAT keeps the server's own port.
        found = (
            server
            if method == "masquerading" or "]" in server or server.count(":") != 1
            else server.split(":")[0]
        )
        self._servers.setdefault(service, []).append((found, method))
        return self._server_line("add-server", service, server, method)

    def _edit_server(self) -> Line:
        service = self._service()
        server, method = self._known_server(service)
        if self._chance(0.15):
            method = self._method(service, server)
        return self._server_line("edit-server", service, server, method)

    def _delete_server(self) -> Line:
        service = self._service()
        return [
            Item("delete-server"),
            *service.items(),
            Item("real-server", self._known_server(service)[0]),
        ]

    def _list(self) -> Line:
        items = [Item("list")] if self._chance(0.95) else []
        if not items:
            return items
        if self._chance(0.3):
            items += self._service().items()
        forms = (
            "stats",
            "rate",
            "thresholds",
            "persistent-conn",
            "tun-info",
            "connection",
            "timeout",
            "daemon",
        )
        if self._chance(0.7):
            items += [Item(self._random.choice(forms))]
        for option, share in (("numeric", 0.7), ("exact", 0.2), ("nosort", 0.15), ("sort", 0.1)):
            if self._chance(share):
                items.append(Item(option))
        if self._chance(0.1):
            items.append(Item(self._random.choice(forms)))
        return self._shuffled(items)

    def _zero(self) -> Line:
        return [Item("zero"), *(self._service().items() if self._chance(0.6) else [])]

    def _timeouts(self) -> Line:
        items = [Item("set")]
        for _ in range(self._random.choices((3, 2, 4, 0), (20, 1, 1, 1))[0]):
            items.append(Item("", self._value((*words.TIMEOUTS, "0"), words.BAD_TIMEOUTS)))
        return items

    def _daemon(self) -> Line:
        role = self._random.choice(("master", "backup"))
        if self._chance(0.4):
            items = [Item("stop-daemon", role)]
            return [*items, Item("syncid", "1")] if self._chance(0.2) else items
        items = [Item("start-daemon", role)]
        for option, share in (
            *(("mcast-interface", 0.85), ("syncid", 0.5), ("sync-maxlen", 0.35)),
            *(("mcast-group", 0.3), ("mcast-port", 0.25), ("mcast-ttl", 0.25)),
        ):
            if self._chance(share):
                good = {
                    "mcast-interface": words.DEVICES[:3],
                    "mcast-group": words.GROUPS,
                    "sync-maxlen": words.SYNC_LENGTHS,
                }.get(option, VALUES[option][:3])
                items.append(Item(option, self._value(good, VALUES[option])))
        return self._shuffled(items)

    def _rare(self) -> Line:
        choice = self._random.randrange(6)
        if choice == 0:
            self._added.clear()
            self._servers.clear()
            return [Item("clear")]
        if choice == 1:
            return [Item("help")]
        if choice == 2:
            return [Item("version")]
        if choice == 3:
            return self._shuffled(
                [Item(self._random.choice(COMMANDS), "master"), *self._typist.any_options(3)]
            )
        if choice == 4:
            return self._typist.any_options(3)
        return [Item("save"), *([Item("numeric")] if self._chance(0.5) else [])]

    def _restore(self) -> Command:
        lines = []
        for _ in range(self._random.randint(0, 8)):
            kind = self._random.choice(
                (self._add_service, self._add_server, self._edit_server, self._delete_server, self._zero)
            )
            line = self._typist.accident(kind()) if self._chance(0.1) else kind()
            text = " ".join(self._typist.spell(line))
            lines.append(self._typist.odd_text(text) if self._chance(0.1) else text)
        text = "".join(f"{line}\n" for line in lines)
        if self._chance(0.1):
            text = text.replace("\n", "\r\n")
        if self._chance(0.15):
            # The real program loses a last line that ends in blanks.
            text = text.removesuffix("\n") + self._random.choice(("", " ", "  ", " \t", "\r", "ipvsadm"))
        return Command(("-R",) if self._chance(0.9) else ("--restore",), text)

    def _round_trip(self) -> list[Command]:
        save = [Item("save"), Item("numeric")] if self._chance(0.6) else [Item("save")]
        return [
            Command(tuple(self._typist.spell(save)), save=True),
            Command(("-C",)),
            Command(("-R",), SAVED),
        ]

    # -- parts ---------------------------------------------------------------

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _sample(self, pool: Sequence[str], count: int) -> list[str]:
        return self._random.sample(pool, min(count, len(pool)))

    def _shuffled(self, items: Line) -> Line:
        """Options in any order behind the command; ``-6`` mostly behind its mark, as it must be."""
        if self._chance(0.3):
            rest = items[1:]
            self._random.shuffle(rest)
            if Item("ipv6") in rest and self._chance(0.8):
                rest.remove(Item("ipv6"))
                marks = [position for position, item in enumerate(rest) if item.option == "fwmark-service"]
                rest.insert(marks[0] + 1 if marks else 0, Item("ipv6"))
            return [*items[:1], *rest]
        return items

    def _value(self, good: Sequence[str], odd: Sequence[str], share: float = 0.08) -> str:
        return self._random.choice(odd if self._chance(share) else good)

    def _new_service(self) -> Service:
        option = self._random.choices(
            ("tcp-service", "udp-service", "sctp-service", "fwmark-service"), (45, 25, 10, 20)
        )[0]
        if option == "fwmark-service":
            mark = self._value(words.MARKS, words.ODD_MARKS, 0.2)
            six = self._chance(0.35)
            return Service(option, mark, 6 if six else 4, six)
        names = words.NAMED_PORTS.get(option, ())
        port = self._value((*words.PORTS, *names), words.ODD_PORTS, 0.2)
        if self._chance(0.3):
            address = self._value(words.VIPS6, words.ODD_VIPS6, 0.15)
            bare = self._chance(0.06)
            return Service(option, address if bare else f"[{address}]:{port}", 6)
        address = self._value(self._vips4, self._odd_vips4, 0.1)
        return Service(option, address if self._chance(0.05) else f"{address}:{port}")

    def _service(self) -> Service:
        """One that was added, mostly."""
        pool = self._added if self._added and self._chance(0.92) else self._services
        return self._random.choice(pool)

    def _service_options(self, service: Service) -> Line:
        items: Line = []
        scheduler = ""
        if self._chance(0.9):
            scheduler = self._value(words.SCHEDULERS, words.ODD_SCHEDULERS, 0.05)
            items.append(Item("scheduler", scheduler))
        six = service.family == 6
        zero = service.value.endswith(":0") or ":" not in service.value
        if self._chance(0.9 if zero else 0.3):
            value = self._value(words.TIMEOUTS, words.BAD_TIMEOUTS) if self._chance(0.7) else None
            items.append(Item("persistent", value))
        if self._chance(0.2):
            masks = words.MASKS6 if six else words.MASKS4
            odd = words.BAD_MASKS if six else (*words.ODD_MASKS4, *words.BAD_MASKS)
            items.append(Item("netmask", self._value(masks, odd, 0.15)))
        if self._chance(0.12):
            items.append(Item("pe", self._value(("sip",), VALUES["pe"], 0.2)))
        if self._chance(0.25 if service.option in ("udp-service", "fwmark-service") else 0.03):
            items.append(Item("ops"))
        flags = words.FLAGS.get(scheduler)
        if self._chance(0.5 if flags else 0.08):
            items.append(Item("sched-flags", self._value(flags or words.FLAGS[""], words.BAD_FLAGS, 0.1)))
        return items

    def _server(self, service: Service) -> str:
        mixed = self._chance(0.08)
        if (service.family == 6) != mixed:
            address = self._value(self._servers6, words.BAD_SERVERS6, 0.05)
            if self._chance(0.2):
                return address
            return f"[{address}]:{self._port()}"
        address = self._value(self._servers4, words.BAD_SERVERS4, 0.05)
        return address if self._chance(0.4) else f"{address}:{self._port()}"

    def _port(self) -> str:
        if self._chance(0.02):
            return self._random.choice(words.BAD_PORTS)
        return self._value(words.PORTS[:3], words.PORTS + words.ODD_PORTS, 0.2)

    def _known_server(self, service: Service) -> tuple[str, str]:
        known = self._servers.get(service)
        if known and self._chance(0.92):
            return self._random.choice(known)
        server = self._server(service)
        return server, self._method(service, server)

    def _method(self, service: Service, server: str) -> str:
        mixed = (service.family == 6) != (server.startswith("[") or server.count(":") > 1)
        if mixed and self._chance(0.85):
            return "ipip"
        return self._random.choices(("masquerading", "gatewaying", "ipip", ""), (45, 15, 25, 15))[0]

    def _server_line(self, command: str, service: Service, server: str, method: str) -> Line:
        items = [Item(command), *service.items(), Item("real-server", server)]
        if method:
            items.append(Item(method))
        if self._chance(0.6):
            items.append(Item("weight", self._value(words.WEIGHTS, words.ODD_NUMBERS + words.BAD_NUMBERS)))
        if self._chance(0.25):
            items.append(Item("u-threshold", self._value(words.WEIGHTS, VALUES["u-threshold"])))
        if self._chance(0.15 if items[-1].option == "u-threshold" else 0.03):
            items.append(Item("l-threshold", self._value(words.WEIGHTS[:4], VALUES["l-threshold"])))
        if self._chance(0.5 if method == "ipip" else 0.03):
            items += self._tunnel()
        return self._shuffled(items)

    def _tunnel(self) -> Line:
        kind = self._value(words.TUNNELS, words.BAD_TUNNELS, 0.05)
        items = [Item("tun-type", kind)]
        if self._chance(0.9 if kind == "gue" else 0.07):
            items.append(Item("tun-port", self._value(words.TUNNEL_PORTS, VALUES["tun-port"])))
        if self._chance(0.6 if kind != "ipip" else 0.05):
            flags = ("tun-nocsum", "tun-csum") if kind == "gre" else ("tun-nocsum", "tun-csum", "tun-remcsum")
            items.append(Item(self._random.choice(flags)))
        if self._chance(0.05):
            items.append(Item(self._random.choice(("tun-nocsum", "tun-csum", "tun-remcsum"))))
        return items


def sequence(seed: int, number: int) -> list[Command]:
    """The ``number``-th sequence of a seed: the same commands every time.

    The first ones of every seed are all pairs of a command and an option.
    """
    author = Author(f"{seed}.{number}")
    pairs = [(command, option) for command in COMMANDS for option in OPTIONS]
    part = pairs[number * SEQUENCE : (number + 1) * SEQUENCE]
    made = [author.pair(command, option) for command, option in part]
    return (made + author.commands())[:SEQUENCE]
