"""From arguments to a :class:`Request`: scan, gather operands, check what goes together.

The order of checks is the real program's, because of several mistakes in one line it
names the first that it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xlvs.ipvsadm import messages
from xlvs.ipvsadm.names import Names
from xlvs.ipvsadm.operands import DEFAULT_SCHEDULER, Operands, to_timeout
from xlvs.ipvsadm.options import (
    BIT,
    COMMAND_NAMES,
    LEGAL,
    TUNNEL_COLUMNS,
    TUNNEL_LEGAL,
    TUNNEL_OPTIONS,
    Option,
    following,
)
from xlvs.ipvsadm.popt import ScanError, Scanner
from xlvs.ipvsadm.request import Quit, Request, fail
from xlvs.model import (
    L4,
    ClientAddress,
    Destination,
    DestinationKey,
    Forward,
    Service,
    ServiceFlag,
    ServiceKey,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelType,
)

PROGRAM = "ipvsadm"

_DAEMON_ROLES = ("master", "backup")
_DAEMON_COMPLAINTS = {
    "start-daemon": "illegal start-daemon parameter specified",
    "stop-daemon": "illegal start_daemon specified",
}
_DETAIL = BIT["stats"] | BIT["rate"] | BIT["thresholds"]
_NOT_SERVICES = BIT["connection"] | BIT["timeout"] | BIT["daemon"]
_PLAIN_IPIP = Tunnel()
# Ways to tell the client's address that not every protocol has; a mark may stand for any.
_ONLY_FOR = {
    ClientAddress.TOA: ("A client's address goes by option only in TCP and UDP", (L4.TCP, L4.UDP)),
    ClientAddress.PROXY: ("The PROXY protocol is only for TCP", (L4.TCP,)),
}


def parse(arguments: Sequence[str], names: Names) -> Request:
    """Read a command line (without the program's name).

    Raises :class:`Quit` for one that is wrong, and for ``-h`` and ``-v``.
    """
    scanner = Scanner(arguments)
    scan = scanner.options()
    command, role = _command(scan)
    scanner.vocabulary = following(command)
    operands = Operands()
    given = 0
    try:
        for option, value in scan:
            if option.long in COMMAND_NAMES:
                raise fail(f"invalid option `{scanner.argument}'")
            if given & option.bit:
                raise fail(f"multiple '{option.column}' options specified")
            given |= option.bit
            operands.take(option.long, value, names)
    except ScanError as error:
        raise Quit(255, stderr=f"{error}\n", ends_restore=False) from None

    request = Request(command, given)
    if command == "set":
        request.timeouts = _timeouts(scanner.leftovers)
    if scanner.leftovers:
        raise fail(f"unexpected argument {scanner.leftovers[0]}")
    if operands.scheduler_flags:
        operands.resolve_scheduler_flags()
    complaint = LEGAL[command].complaint(given)
    if complaint:
        raise fail(complaint)
    if given & BIT["service-address"]:
        request.key = _key(operands)
    if role is not None:
        request.daemon = _daemon(role, operands)
    finish = _FINISH.get(command)
    if finish is not None:
        finish(request, operands)
    return request


def _command(scan: Iterator[tuple[Option, str | None]]) -> tuple[str, str | None]:
    """The command, which is the first option, and a daemon's role.

    Whatever else comes first is not understood at all.
    """
    try:
        option, value = next(scan)
    except (ScanError, StopIteration):
        raise Quit(255, stderr=messages.try_help(PROGRAM)) from None
    if option.long not in COMMAND_NAMES:
        raise Quit(255, stderr=messages.try_help(PROGRAM))
    if option.long == "help":
        raise Quit(0, stdout=messages.usage(PROGRAM))
    if option.long == "version":
        raise Quit(0, stdout=messages.VERSION)
    if option.long in _DAEMON_COMPLAINTS and value not in _DAEMON_ROLES:
        raise fail(_DAEMON_COMPLAINTS[option.long])
    return option.long, value


def _timeouts(leftovers: list[str]) -> Timeouts:
    if len(leftovers) < 3:
        raise fail("--set option requires 3 timeout values")
    tcp, tcp_fin, udp = (to_timeout(text, 0) for text in leftovers[:3])
    del leftovers[:3]
    return Timeouts(tcp, tcp_fin, udp)


def _key(operands: Operands) -> ServiceKey:
    if operands.fwmark:
        return ServiceKey(operands.family, 0, b"", 0, operands.fwmark)
    return ServiceKey(operands.family, operands.protocol, operands.address, operands.port)


def _daemon(role: str, operands: Operands) -> SyncDaemon:
    numbers = operands.numbers
    return SyncDaemon(
        role,
        operands.interface,
        numbers.get("syncid", 0),
        numbers.get("sync-maxlen", 0),
        operands.group,
        numbers.get("mcast-port", 0),
        numbers.get("mcast-ttl", 0),
    )


def _finish_service(request: Request, operands: Operands) -> None:
    key = request.key
    assert key is not None
    if not (key.fwmark or key.port or operands.flags & ServiceFlag.PERSISTENT):
        raise fail("Zero port specified for non-persistent service")
    if operands.flags & ServiceFlag.ONEPACKET and not key.fwmark and key.protocol != L4.UDP:
        raise fail("One-Packet Scheduling is only for UDP virtual services")
    if operands.synproxy and not key.fwmark and key.protocol != L4.TCP:
        raise fail("SYNPROXY is only for TCP virtual services")
    if operands.client_address in _ONLY_FOR and not key.fwmark:
        name, protocols = _ONLY_FOR[operands.client_address]
        if key.protocol not in protocols:
            raise fail(f"{name} virtual services")
    request.service = Service(
        key,
        operands.scheduler or DEFAULT_SCHEDULER,
        operands.flags,
        operands.timeout,
        operands.netmask,
        operands.engine,
        operands.synproxy,
        operands.client_address,
    )


def _finish_server(request: Request, operands: Operands) -> None:
    key = request.key
    assert key is not None
    family, address, port = operands.server
    tunnelled = operands.forward == Forward.TUNNEL
    fullnat = operands.forward == Forward.FULLNAT
    if request.command != "delete-server":
        # Only NAT and FULLNAT translate ports: the others send to the service's own.
        if not key.fwmark and operands.forward != Forward.MASQ and not fullnat:
            port = key.port
        if family != key.family and not tunnelled and not fullnat:
            raise fail("Different address family is allowed only for tunneling servers")
        if request.options & TUNNEL_OPTIONS:
            if not tunnelled:
                raise fail("Tunnel options conflict with forward method")
            complaint = TUNNEL_LEGAL[operands.tunnel].complaint(
                request.options & (TUNNEL_OPTIONS & ~BIT["tun-type"]), TUNNEL_COLUMNS
            )
            if complaint:
                raise fail(complaint)
    numbers = operands.numbers
    request.destination = Destination(
        DestinationKey(family, address, port),
        operands.forward,
        numbers.get("weight", 1),
        numbers.get("u-threshold", 0),
        numbers.get("l-threshold", 0),
        _PLAIN_IPIP
        if operands.tunnel == TunnelType.IPIP
        else Tunnel(operands.tunnel, numbers.get("tun-port", 0), operands.tunnel_flags),
    )


def _finish_list(request: Request, _operands: Operands) -> None:
    given = request.options
    if (given & _NOT_SERVICES and given & _DETAIL) or (
        given & (BIT["timeout"] | BIT["daemon"]) and given & BIT["persistent-conn"]
    ):
        raise fail("options conflicts in the list command")
    if given & BIT["local"] and not given & BIT["connection"]:
        raise fail("The option 'local' needs the 'connection' option in the 'list' command")


def _finish_zero(request: Request, _operands: Operands) -> None:
    key = request.key
    # The real program cannot tell the all-zero address and port from none at all.
    if key is not None and not key.fwmark and not key.port and not any(key.address):
        request.key = None


def _finish_pool(request: Request, operands: Operands) -> None:
    request.local_addresses = operands.local_addresses


_FINISH: dict[str, Callable[[Request, Operands], None]] = {
    "add-service": _finish_service,
    "edit-service": _finish_service,
    "add-server": _finish_server,
    "edit-server": _finish_server,
    "delete-server": _finish_server,
    "list": _finish_list,
    "zero": _finish_zero,
    "add-laddr": _finish_pool,
    "del-laddr": _finish_pool,
}
