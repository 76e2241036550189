"""keepalived's command line, every option of 2.2, with xlvs's few beside it."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from typing import Any

DEFAULT_FILE = "/etc/keepalived/keepalived.conf"
GENHASH = ("-T", "--genhash")  # what must be the first option, for all others are genhash's
ENGINES = ("xdp", "kernel")


class _Misplaced(argparse.Action):
    """What is no option of the daemon's."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(f"{self.option_strings[0]} must be the first option")


def parser(summary: str) -> argparse.ArgumentParser:
    """The options; what no option belongs to is an error, as in keepalived."""
    made = argparse.ArgumentParser(
        prog="xlvs keepalived",
        description=summary,
        allow_abbrev=False,
        epilog="'xlvs keepalived status|instances|servers|sessions|drain|disable|enable|force|reload' "
        "talk to the daemon that runs; each has --help.",
    )
    add = made.add_argument
    add("-f", "--use-file", metavar="FILE", default=DEFAULT_FILE, help="the configuration")
    add("-i", "--config-id", metavar="ID", help='what lines of "@ID" are compared with')
    add(
        "-t",
        "--config-test",
        metavar="LOG_FILE",
        nargs="?",
        const="",
        help="only check the configuration; messages go to standard error, or are appended to LOG_FILE",
    )
    add("--explain", action="store_true", help="print the effective configuration and where it comes from")
    add("--engine", choices=ENGINES, default="", help="the data plane: xlvs's own, or the kernel's IPVS")
    _add_running(made)
    _add_files(made)
    add("-v", "--version", action="store_true", help="print the version")
    add(
        "--signum", metavar="SIGFUNC", help="print the number of STOP, RELOAD, DATA, STATS, STATS_CLEAR, JSON"
    )
    add(*GENHASH, action=_Misplaced, help="the first option: print a page's digest (-T --help)")
    add("--child", help=argparse.SUPPRESS)  # NAME:DESCRIPTOR, from the parent to itself
    return made


def _add_running(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("-P", "--vrrp", action="store_true", help="only VRRP")
    add("-C", "--check", action="store_true", help="only health checks")
    add("-B", "--no_bfd", action="store_true", help="no BFD")
    add("--all", action="store_true", help="every child process, even without configuration")
    add("-n", "--dont-fork", action="store_true", help="stay in the foreground")
    add("-l", "--log-console", action="store_true", help="messages to standard error")
    add("-D", "--log-detail", action="store_true", help="more messages")
    add("-S", "--log-facility", metavar="FACILITY", default="daemon", help="of syslog: 0-7, user, daemon")
    add("-g", "--log-file", metavar="FILE", help="messages to a file for each process")
    add("--flush-log-file", action="store_true", help="it is always flushed")
    add("-G", "--no-syslog", action="store_true", help="no messages to syslog")
    add("-X", "--release-vips", action="store_true", help="of no effect, as in keepalived 2.2.7")
    add("-V", "--dont-release-vrrp", action="store_true", help="leave VIPs and routes on a stop")
    add("-I", "--dont-release-ipvs", action="store_true", help="leave services on a stop")
    add("-R", "--dont-respawn", action="store_true", help="end when a child process dies")
    add("-d", "--dump-conf", action="store_true", help="the configuration into the log")
    add("-a", "--address-monitoring", action="store_true", help="log addresses that come and go")
    add("-s", "--namespace", metavar="NAME", help="run in this network namespace")
    add("-e", "--all-config", action="store_true", help="a missing included file is an error")
    add("-u", "--umask", metavar="MASK", type=_mask, help="of files that are made")
    add("-m", "--core-dump", action="store_true", help="allow core dumps")
    add("-M", "--core-dump-pattern", nargs="?", const="core", metavar="PATTERN", help="the kernel's, too")
    for flag, name in (("-x", "--snmp"), ("--no-mem-check", None)):
        add(*filter(None, (flag, name)), action="store_true", help=argparse.SUPPRESS)
    add("-A", "--snmp-agent-socket", help=argparse.SUPPRESS)
    for name in ("--perf", "--debug"):
        add(name, nargs="?", const="", help=argparse.SUPPRESS)


def _add_files(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("-p", "--pid", metavar="FILE", help="the parent's PID file")
    add("-r", "--vrrp_pid", metavar="FILE", help="VRRP's PID file")
    add("-c", "--checkers_pid", metavar="FILE", help="the health checks' PID file")
    add("-b", "--bfd_pid", metavar="FILE", help="BFD's PID file")


def _mask(text: str) -> int:
    try:
        found = int(text, 0 if text.lower().startswith("0x") else 8 if text.startswith("0") else 10)
    except ValueError:
        found = -1
    if not 0 <= found <= 0o777:
        raise argparse.ArgumentTypeError(f"'{text}' is no umask")
    return found


def config_id(given: str | None) -> str:
    """What lines of ``@ID`` are compared with: the first part of this machine's name unless given."""
    return socket.gethostname().partition(".")[0] if given is None else given


# -- commands to a running daemon -------------------------------------------------------

COMMANDS = {
    "status": "the daemon and its processes",
    "instances": "VRRP's instances and groups",
    "servers": "virtual and real servers with their checks",
    "sessions": "BFD's sessions",
    "drain": "weight 0 for a real server: its connections go on, it gets no new ones",
    "disable": "take a real server out",
    "enable": "undo drain and disable",
    "force": "make a VRRP instance master or backup",
    "reload": "read the configuration again, and say what is wrong with it",
}


def request_parser(command: str) -> argparse.ArgumentParser:
    """The arguments of one of :data:`COMMANDS`."""
    made = argparse.ArgumentParser(
        prog=f"xlvs keepalived {command}", description=COMMANDS[command], allow_abbrev=False
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--instance-name", help="of global_defs, where several daemons share a namespace")
    if command in ("drain", "disable", "enable"):
        made.add_argument("server", help="ADDRESS or ADDRESS:PORT of the real server")
        made.add_argument("--virtual", help="only in this virtual server: ADDRESS[:PORT], group, or fwmark N")
    if command == "force":
        made.add_argument("instance", help="name of the vrrp_instance")
        made.add_argument("state", choices=("master", "backup"))
    return made


def request_of(command: str, arguments: Sequence[str]) -> tuple[dict[str, object], argparse.Namespace]:
    """The request that a command line is, and its options."""
    chosen = request_parser(command).parse_args(arguments)
    fields = {name: value for name, value in vars(chosen).items() if name not in ("json", "instance_name")}
    return {"command": command, **{name: value for name, value in fields.items() if value}}, chosen
