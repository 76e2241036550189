"""The operands of a command line, gathered option by option in the order given."""

from __future__ import annotations

import socket
from collections.abc import Callable

from xlvs.ipvsadm.names import Names
from xlvs.ipvsadm.numbers import leading_number, to_address, to_endpoint, to_number
from xlvs.ipvsadm.request import fail
from xlvs.model import (
    AF_INET,
    AF_INET6,
    L4,
    ClientAddress,
    Forward,
    ServiceFlag,
    SynProxy,
    TunnelType,
)

DEFAULT_SCHEDULER = "wlc"
DEFAULT_PERSISTENCE = 360  # seconds
MAX_TIMEOUT = 31 * 86400  # seconds
_INT_MAX = 2**31 - 1
_NAME_LENGTH = 15  # the real program cuts names to the kernel's fields

_PROTOCOLS = {"tcp-service": L4.TCP, "udp-service": L4.UDP, "sctp-service": L4.SCTP}
_FORWARD = {
    "masquerading": Forward.MASQ,
    "ipip": Forward.TUNNEL,
    "gatewaying": Forward.ROUTE,
    "fullnat": Forward.FULLNAT,
}
_SYNPROXY = {"enable": SynProxy.ALWAYS, "disable": SynProxy.OFF, "auto": SynProxy.AUTO}
_CLIENT_ADDRESS = {
    "toa": ClientAddress.TOA,
    "proxy": ClientAddress.PROXY,
    "none": ClientAddress.NONE,
    "default": ClientAddress.BY_METHOD,
}
_TUNNELS = {"ipip": TunnelType.IPIP, "gue": TunnelType.GUE, "gre": TunnelType.GRE}
_TUNNEL_FLAGS = {"tun-nocsum": 0, "tun-csum": 1, "tun-remcsum": 2}
_NUMBERS = {
    # option: (lowest, highest, its name in the complaint)
    "weight": (0, _INT_MAX, "weight"),
    "u-threshold": (0, _INT_MAX, "u_threshold"),
    "l-threshold": (0, _INT_MAX, "l_threshold"),
    "syncid": (0, 255, "syncid"),
    "mcast-port": (1, 65535, "mcast-port"),
    "mcast-ttl": (1, 255, "mcast-ttl"),
    "sync-maxlen": (1, 65535 - 20 - 8, "sync-maxlen"),
    "tun-port": (1, 65535, "tunnel port"),
}
# Scheduler flags: what they set, and the one scheduler that knows the name.
_SCHEDULER_FLAGS = {
    "flag-1": (ServiceFlag.SCHED1, ""),
    "flag-2": (ServiceFlag.SCHED2, ""),
    "flag-3": (ServiceFlag.SCHED3, ""),
    "sh-fallback": (ServiceFlag.SCHED1, "sh"),
    "sh-port": (ServiceFlag.SCHED2, "sh"),
    "mh-fallback": (ServiceFlag.SCHED1, "mh"),
    "mh-port": (ServiceFlag.SCHED2, "mh"),
}


class Operands:
    """What the options so far have said, on top of the real program's defaults.

    ``server`` is the real server's (family, address, port); ``numbers`` holds the
    plain numbers by option name.
    """

    __slots__ = (
        "address",
        "client_address",
        "engine",
        "family",
        "flags",
        "forward",
        "fwmark",
        "group",
        "interface",
        "local_addresses",
        "netmask",
        "numbers",
        "port",
        "protocol",
        "scheduler",
        "scheduler_flags",
        "server",
        "synproxy",
        "timeout",
        "tunnel",
        "tunnel_flags",
    )

    def __init__(self) -> None:
        self.family = 0
        self.protocol = 0
        self.address = b""
        self.port = 0
        self.fwmark = 0
        self.scheduler = ""
        self.scheduler_flags = ""
        self.flags = ServiceFlag(0)
        self.timeout = 0
        self.netmask = 0xFFFFFFFF
        self.engine = ""
        self.server = (0, b"", 0)
        self.forward = Forward.ROUTE
        self.tunnel = TunnelType.IPIP
        self.tunnel_flags = 0
        self.numbers: dict[str, int] = {}
        self.interface = ""
        self.group = b""
        self.synproxy: SynProxy | None = None
        self.client_address: ClientAddress | None = None
        self.local_addresses: list[bytes] = []

    def take(self, option: str, value: str | None, names: Names) -> None:
        """Let one option (by its long name) take effect; raises ``Quit`` for a bad value."""
        take = _TAKE.get(option)
        if take is not None:
            take(self, option, value or "", names)
        elif option == "persistent":
            self.flags |= ServiceFlag.PERSISTENT
            self.timeout = DEFAULT_PERSISTENCE if value is None else to_timeout(value, 1)

    def resolve_scheduler_flags(self) -> None:
        """Turn ``-b`` into flags, once ``-s`` is known wherever it stood."""
        scheduler = self.scheduler or DEFAULT_SCHEDULER
        for name in self.scheduler_flags.split(","):
            if not name:
                continue
            flag, owner = _SCHEDULER_FLAGS.get(name, (None, ""))
            if flag is None:
                raise fail(f"invalid scheduler flag `{name}'")
            if owner not in ("", scheduler):
                raise fail(f"incompatible scheduler flag `{name}'")
            self.flags |= flag


def to_timeout(text: str, low: int) -> int:
    """A timeout in seconds, from ``low`` to a month."""
    seconds = to_number(text, low, MAX_TIMEOUT)
    if seconds is None:
        raise fail(f"invalid timeout value `{text}' specified")
    return seconds


def _service(operands: Operands, option: str, value: str, names: Names) -> None:
    operands.protocol = _PROTOCOLS[option]
    endpoint = to_endpoint(value, operands.protocol, names)
    if endpoint is None:
        raise fail("illegal virtual server address[:port] specified")
    operands.family, operands.address, port = endpoint
    operands.port = port or 0
    if operands.family == AF_INET6:
        operands.netmask = 128


def _fwmark(operands: Operands, _option: str, value: str, _names: Names) -> None:
    mark = to_number(value, 1, 2**32 - 1)
    if mark is None:
        raise fail(f"invalid fwmark value `{value}' specified")
    operands.family = AF_INET
    operands.protocol = L4.TCP  # what names of ports in -r are looked up under
    operands.fwmark = mark


def _ipv6(operands: Operands, _option: str, _value: str, _names: Names) -> None:
    if not operands.fwmark:
        raise fail("-6 used before -f\n")
    operands.family = AF_INET6
    operands.netmask = 128


def _scheduler(operands: Operands, _option: str, value: str, _names: Names) -> None:
    operands.scheduler = value[:_NAME_LENGTH]


def _scheduler_flags(operands: Operands, _option: str, value: str, _names: Names) -> None:
    operands.scheduler_flags = value[:127]  # the real program's buffer


def _netmask(operands: Operands, _option: str, value: str, names: Names) -> None:
    if operands.family == AF_INET6:
        operands.netmask = leading_number(value)
        if not 1 <= operands.netmask <= 128:
            raise fail("illegal ipv6 netmask specified")
        return
    mask = to_address(value, names)
    if mask is None:
        raise fail("illegal virtual server persistent mask specified")
    operands.netmask = int.from_bytes(mask, "big")


def _engine(operands: Operands, _option: str, value: str, _names: Names) -> None:
    operands.engine = value[:_NAME_LENGTH]


def _ops(operands: Operands, _option: str, _value: str, _names: Names) -> None:
    operands.flags |= ServiceFlag.ONEPACKET


def _server(operands: Operands, _option: str, value: str, names: Names) -> None:
    endpoint = to_endpoint(value, operands.protocol, names)
    if endpoint is None:
        raise fail("illegal real server address[:port] specified")
    family, address, port = endpoint
    operands.server = (family, address, operands.port if port is None else port)


def _forward(operands: Operands, option: str, _value: str, _names: Names) -> None:
    operands.forward = _FORWARD[option]


def _number(operands: Operands, option: str, value: str, _names: Names) -> None:
    low, high, name = _NUMBERS[option]
    number = to_number(value, low, high)
    if number is None:
        raise fail(f"illegal {name} specified")
    operands.numbers[option] = number


def _interface(operands: Operands, _option: str, value: str, _names: Names) -> None:
    operands.interface = value[:_NAME_LENGTH]


def _multicast_group(operands: Operands, _option: str, value: str, _names: Names) -> None:
    family, version = (AF_INET6, "IPv6") if ":" in value else (AF_INET, "IPv4")
    try:
        group = socket.inet_pton(family, value)
    except (OSError, ValueError):
        group = b"\0"
    if not (group[0] == 0xFF if family == AF_INET6 else group[0] >> 4 == 14):
        raise fail(f"invalid {version} mcast-group `{value}'")
    operands.group = group


def _tunnel(operands: Operands, _option: str, value: str, _names: Names) -> None:
    if value not in _TUNNELS:
        raise fail("illegal tunnel type specified")
    operands.tunnel = _TUNNELS[value]


def _tunnel_flag(operands: Operands, option: str, _value: str, _names: Names) -> None:
    operands.tunnel_flags |= _TUNNEL_FLAGS[option]


def _synproxy(operands: Operands, _option: str, value: str, _names: Names) -> None:
    if value not in _SYNPROXY:
        raise fail(f"illegal synproxy `{value}' specified: enable, disable or auto")
    operands.synproxy = _SYNPROXY[value]


def _client_address(operands: Operands, _option: str, value: str, _names: Names) -> None:
    if value not in _CLIENT_ADDRESS:
        raise fail(f"illegal client-address `{value}' specified: toa, proxy, none or default")
    operands.client_address = _CLIENT_ADDRESS[value]


def _local_address(operands: Operands, _option: str, value: str, _names: Names) -> None:
    from xlvs.ipvsadm import locals as pool  # few command lines have any

    operands.local_addresses = pool.parse(value)


# Options that are not here say all they have to say by being given.
_TAKE: dict[str, Callable[[Operands, str, str, Names], None]] = {
    **dict.fromkeys(_PROTOCOLS, _service),
    "fwmark-service": _fwmark,
    "ipv6": _ipv6,
    "scheduler": _scheduler,
    "sched-flags": _scheduler_flags,
    "netmask": _netmask,
    "pe": _engine,
    "ops": _ops,
    "real-server": _server,
    **dict.fromkeys(_FORWARD, _forward),
    **dict.fromkeys(_NUMBERS, _number),
    "mcast-interface": _interface,
    "mcast-group": _multicast_group,
    "tun-type": _tunnel,
    **dict.fromkeys(_TUNNEL_FLAGS, _tunnel_flag),
    "synproxy": _synproxy,
    "client-address": _client_address,
    "local-address": _local_address,
}
