"""The options and commands of ipvsadm 1.31, and which of them go together.

``--json`` (with ``-L``) and ``--atomic`` (with ``-R``) are ours, and so is the dialect of
FULLNAT, which Alibaba's and DPVS's programs speak: its commands, and options that only some
commands know. What else there is, is the real program's; to any of its other commands an
option of the dialect is unknown, as it is to the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from xlvs.model import TunnelType

# How an option takes a value.
NONE, REQUIRED, OPTIONAL = range(3)


class Option(NamedTuple):
    """One option: its names, whether it takes a value, and its place in the legality table.

    ``column`` is the name under which the legality table knows it ("" for options that
    are never checked), ``bit`` the same as a bit.
    """

    long: str
    short: str
    value: int
    column: str = ""
    bit: int = 0


# The legality table's columns, in the order in which the real program checks them.
COLUMNS = (
    "numeric",
    "connection",
    "service-address",
    "scheduler",
    "persistent",
    "netmask",
    "real-server",
    "forwarding-method",
    "weight",
    "u-threshold",
    "l-threshold",
    "mcast-interface",
    "timeout",
    "daemon",
    "stats",
    "rate",
    "thresholds",
    "persistent-conn",
    "nosort",
    "syncid",
    "exact",
    "ops",
    "pe",
    "sched-flags",
    "mcast-group",
    "mcast-port",
    "mcast-ttl",
    "sync-maxlen",
    "tun-info",
    "tun-type",
    "tun-port",
    "tun-nocsum",
    "tun-csum",
    "tun-remcsum",
    "json",
    "atomic",
    "synproxy",
    "client-address",
    "local-address",
    "local",
)
BIT = {name: 1 << position for position, name in enumerate(COLUMNS)}


def _option(long: str, short: str = "", value: int = NONE, column: str = "") -> Option:
    return Option(long, short, value, column, BIT.get(column, 0))


# The first option of a command line is its command ...
COMMANDS = (
    _option("add-service", "A"),
    _option("edit-service", "E"),
    _option("delete-service", "D"),
    _option("clear", "C"),
    _option("list", "L"),
    _option("list", "l"),
    _option("zero", "Z"),
    _option("add-server", "a"),
    _option("edit-server", "e"),
    _option("delete-server", "d"),
    _option("set"),
    _option("help", "h"),
    _option("version", "v"),
    _option("restore", "R"),
    _option("save", "S"),
    _option("start-daemon", value=REQUIRED),
    _option("stop-daemon", value=REQUIRED),
)
DIALECT_COMMANDS = (_option("add-laddr", "P"), _option("del-laddr", "Q"), _option("get-laddr", "G"))
# ... and these follow it.
OPTIONS = (
    _option("tcp-service", "t", REQUIRED, "service-address"),
    _option("udp-service", "u", REQUIRED, "service-address"),
    _option("sctp-service", "", REQUIRED, "service-address"),
    _option("fwmark-service", "f", REQUIRED, "service-address"),
    _option("scheduler", "s", REQUIRED, "scheduler"),
    _option("persistent", "p", OPTIONAL, "persistent"),
    _option("netmask", "M", REQUIRED, "netmask"),
    _option("real-server", "r", REQUIRED, "real-server"),
    _option("masquerading", "m", NONE, "forwarding-method"),
    _option("ipip", "i", NONE, "forwarding-method"),
    _option("gatewaying", "g", NONE, "forwarding-method"),
    _option("weight", "w", REQUIRED, "weight"),
    _option("u-threshold", "x", REQUIRED, "u-threshold"),
    _option("l-threshold", "y", REQUIRED, "l-threshold"),
    _option("numeric", "n", NONE, "numeric"),
    _option("connection", "c", NONE, "connection"),
    _option("mcast-interface", "", REQUIRED, "mcast-interface"),
    _option("syncid", "", REQUIRED, "syncid"),
    _option("timeout", "", NONE, "timeout"),
    _option("daemon", "", NONE, "daemon"),
    _option("stats", "", NONE, "stats"),
    _option("rate", "", NONE, "rate"),
    _option("thresholds", "", NONE, "thresholds"),
    _option("persistent-conn", "", NONE, "persistent-conn"),
    _option("nosort", "", NONE, "nosort"),
    _option("sort"),  # sorting is what happens anyway: taken everywhere, for old scripts
    _option("exact", "X", NONE, "exact"),
    _option("ipv6", "6"),
    _option("ops", "o", NONE, "ops"),
    _option("pe", "", REQUIRED, "pe"),
    _option("sched-flags", "b", REQUIRED, "sched-flags"),
    _option("mcast-group", "", REQUIRED, "mcast-group"),
    _option("mcast-port", "", REQUIRED, "mcast-port"),
    _option("mcast-ttl", "", REQUIRED, "mcast-ttl"),
    _option("sync-maxlen", "", REQUIRED, "sync-maxlen"),
    _option("tun-info", "", NONE, "tun-info"),
    _option("tun-type", "", REQUIRED, "tun-type"),
    _option("tun-port", "", REQUIRED, "tun-port"),
    _option("tun-nocsum", "", NONE, "tun-nocsum"),
    _option("tun-csum", "", NONE, "tun-csum"),
    _option("tun-remcsum", "", NONE, "tun-remcsum"),
    _option("json", "", NONE, "json"),
    _option("atomic", "", NONE, "atomic"),
)
_OF_SERVICES = (
    _option("synproxy", "j", REQUIRED, "synproxy"),
    _option("client-address", "", REQUIRED, "client-address"),
)
# The one deviation from the real program: to -a and -e it is an option that they do not take.
_OF_SERVERS = (_option("fullnat", "b", NONE, "forwarding-method"),)
_OF_POOLS = (_option("local-address", "z", REQUIRED, "local-address"),)
# What only these commands know.
DIALECT_OPTIONS = {
    "add-service": _OF_SERVICES,
    "edit-service": _OF_SERVICES,
    "add-server": _OF_SERVERS,
    "edit-server": _OF_SERVERS,
    "add-laddr": _OF_POOLS,
    "del-laddr": _OF_POOLS,
    "list": (_option("local", "", NONE, "local"),),
}
COMMAND_NAMES = frozenset(option.long for option in COMMANDS + DIALECT_COMMANDS)


class Vocabulary:
    """The options that are known at one place of a command line, by their names."""

    def __init__(self, options: tuple[Option, ...]) -> None:
        self.long: Mapping[str, Option] = {option.long: option for option in options}
        self.short: Mapping[str, Option] = {option.short: option for option in options if option.short}


FIRST = Vocabulary(COMMANDS + DIALECT_COMMANDS + OPTIONS)  # where the command is expected
_USUAL = Vocabulary(COMMANDS + OPTIONS)
FOLLOWING = {
    command: Vocabulary(COMMANDS + OPTIONS + options) for command, options in DIALECT_OPTIONS.items()
}


def following(command: str) -> Vocabulary:
    """The options that are known behind a command."""
    return FOLLOWING.get(command, _USUAL)


class Legality:
    """What one command (or tunnel type) takes; whatever is not named is illegal."""

    def __init__(self, kind: str, needs: str = "", one_of: str = "", takes: str = "") -> None:
        self.kind = kind
        self.needs = _bits(needs)
        self.one_of = _bits(one_of)
        self.known = self.needs | self.one_of | _bits(takes)

    def complaint(self, given: int, columns: tuple[str, ...] = COLUMNS) -> str:
        """The real program's words about what is wrong, or "" where all is well.

        It goes through the columns in order and stops at the first that does not fit.
        """
        alone = given & self.one_of
        if given & self.needs == self.needs and not given & ~self.known and not alone & (alone - 1):
            return ""  # the way of nearly every line of a big restore
        first = ""
        for name in columns:
            bit = BIT[name]
            if not given & bit:
                if self.needs & bit:
                    return f"You need to supply the '{name}' option for the {self.kind}"
            elif not self.known & bit:
                return f"Illegal '{name}' option with the {self.kind}"
            elif self.one_of & bit:
                if first:
                    return f"The option '{name}' conflicts with the '{first}' option in the {self.kind}"
                first = name
        return ""


def _bits(names: str) -> int:
    return sum(BIT[name] for name in names.split())


def _command(name: str, needs: str = "", one_of: str = "", takes: str = "") -> Legality:
    return Legality(f"'{name}' command", needs, one_of, takes)


_SERVICE = "scheduler persistent netmask ops pe sched-flags synproxy client-address"
_SERVER = "forwarding-method weight u-threshold l-threshold tun-type tun-port tun-nocsum tun-csum tun-remcsum"
LEGAL = {
    "add-service": _command("add-service", "service-address", takes=_SERVICE),
    "edit-service": _command("edit-service", "service-address", takes=_SERVICE),
    "delete-service": _command("delete-service", "service-address"),
    "clear": _command("flush"),
    "list": _command(
        "list",
        one_of="connection service-address timeout daemon",
        takes="numeric stats rate thresholds persistent-conn nosort syncid exact tun-info json local",
    ),
    "add-server": _command("add-server", "service-address real-server", takes=_SERVER),
    "delete-server": _command("delete-server", "service-address real-server"),
    "edit-server": _command("edit-server", "service-address real-server", takes=_SERVER),
    "set": _command("set"),
    "start-daemon": _command(
        "start-daemon", takes="mcast-interface syncid mcast-group mcast-port mcast-ttl sync-maxlen"
    ),
    "stop-daemon": _command("stop-daemon", takes="syncid"),
    "restore": _command("restore", takes="atomic"),
    "save": _command("save", takes="numeric"),
    "zero": _command("zero", takes="service-address"),
    "add-laddr": _command("add-laddr", "service-address local-address"),
    "del-laddr": _command("del-laddr", "service-address local-address"),
    "get-laddr": _command("get-laddr", takes="service-address numeric json"),
}
TUNNEL_COLUMNS = ("tun-port", "tun-nocsum", "tun-csum", "tun-remcsum")
TUNNEL_LEGAL = {
    TunnelType.IPIP: Legality("'ipip' tunnel type"),
    TunnelType.GUE: Legality("'gue' tunnel type", needs="tun-port", one_of="tun-nocsum tun-csum tun-remcsum"),
    TunnelType.GRE: Legality("'gre' tunnel type", one_of="tun-nocsum tun-csum"),
}
TUNNEL_OPTIONS = BIT["tun-type"] | _bits(" ".join(TUNNEL_COLUMNS))
