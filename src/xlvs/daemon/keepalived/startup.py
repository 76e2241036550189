"""From the command line to a running daemon: in its namespace, in the background, once."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from xlvs.daemon.keepalived import capabilities, control, logs, pidfile, process, scheduling
from xlvs.daemon.keepalived.child import CHILDREN, Context, Options
from xlvs.daemon.keepalived.main import SIGNALS, Parent, Startup
from xlvs.dataplane import pins
from xlvs.dataplane.port import DataPlane
from xlvs.errors import XlvsError
from xlvs.keepalived.config import STATUS_MISSING, Config, Outcome
from xlvs.keepalived.explain import explain

# keepalived's exit statuses: a configuration that cannot be run, one that is not there.
_CONFIG, _MISSING = 2, 6
_INSIDE = "XLVS_KEEPALIVED_NAMESPACE"  # set in the environment of a daemon that was moved into one
_UMASK = 0o177  # keepalived's
_CORE_PATTERN = "/proc/sys/kernel/core_pattern"

log = logging.getLogger(__name__)


def run(
    chosen: argparse.Namespace,
    arguments: Sequence[str],
    read: Callable[[], Outcome],
    open_data_plane: Callable[[], DataPlane],
) -> int:
    """Run the daemon, or the child that ``--child`` names, to its end; the exit status."""
    if chosen.child:
        return _be_child(chosen, open_data_plane)
    logs.set_up(_logs(chosen))
    if chosen.namespace:
        _enter(chosen.namespace, arguments)
    outcome = read()
    for message in outcome.messages:
        log.warning("%s", message)
    config = outcome.config
    if config is None:
        missing = any(message.status == STATUS_MISSING for message in outcome.messages if message.fatal)
        return _MISSING if missing or not os.path.exists(chosen.use_file) else _CONFIG
    namespace = chosen.namespace or config.globals.net_namespace
    if namespace:
        _enter(namespace, arguments)
    paths = pid_paths(chosen, config)
    if pidfile.running(paths[""]):
        log.warning("daemon is already running")
        return 0
    startup = Startup(
        read,
        lambda name, descriptor: child_command(chosen, arguments, name, descriptor),
        paths,
        control.default_path(config.globals.instance),
        frozenset(_children(chosen)),
        everything=chosen.all,
        respawn=not chosen.dont_respawn,
        explain=lambda current: list(explain(current)),
    )
    if not chosen.dont_fork:
        _go_to_background()
        logs.set_up(_logs(chosen))  # syslog names the process by its number
    if chosen.dump_conf:
        for line in explain(config):
            log.info("%s", line)
    _warn_of_snmp(chosen, config)
    os.umask(_umask(chosen, config))
    scheduling.name(config, "")
    pattern = _allow_cores(chosen)
    capabilities.drop("", capabilities.needed("", config))
    try:
        return asyncio.run(Parent(startup, config, outcome.messages).run())
    finally:
        if pattern is not None:
            _write_pattern(pattern)


def pid_paths(chosen: argparse.Namespace, config: Config) -> dict[str, str]:
    """Where each process's number goes: as the command line says, or keepalived's usual places."""
    given = {
        "": chosen.pid,
        "vrrp": chosen.vrrp_pid,
        "checkers": chosen.checkers_pid,
        "bfd": chosen.bfd_pid,
    }
    settings = config.globals
    namespace = chosen.namespace or settings.net_namespace
    return {
        name: os.path.abspath(path)
        if path
        else pidfile.default(name, settings.use_pid_dir, settings.instance, namespace)
        for name, path in given.items()
    }


def child_command(
    chosen: argparse.Namespace, arguments: Sequence[str], name: str, descriptor: int
) -> list[str]:
    """This program again, as a child: with the same options."""
    own = [*arguments, f"--use-file={os.path.abspath(chosen.use_file)}", f"--child={name}:{descriptor}"]
    return [sys.executable, "-P", "-m", "xlvs.cli.main", "keepalived", *own]


def _be_child(chosen: argparse.Namespace, open_data_plane: Callable[[], DataPlane]) -> int:
    name, _, descriptor = chosen.child.partition(":")
    if name not in CHILDREN or not descriptor.isdecimal():
        raise XlvsError("--child is for xlvs keepalived itself")
    logs.set_up(_logs(chosen), name)
    options = Options(
        engine=chosen.engine,
        keep_services=chosen.dont_release_ipvs,
        keep_addresses=chosen.dont_release_vrrp,
        detail=chosen.log_detail,
        log_addresses=chosen.address_monitoring,
        children=frozenset(_children(chosen)),
        everything=chosen.all,
    )
    if name == "checkers" and options.engine == "xdp":
        with suppress(XlvsError):  # told when the data plane is opened
            pins.bpffs_folder()  # to mount it takes more than the child keeps
    context = Context(
        options,
        open_data_plane=open_data_plane,
        state_path=lambda child, instance: f"{control.default_path(instance)}.{child}",
    )
    return process.serve(name, int(descriptor), context)


def _children(chosen: argparse.Namespace) -> list[str]:
    """-P and -C name what alone is to run (both together leave nothing out that either names)."""
    only = {"vrrp": chosen.vrrp, "checkers": chosen.check}
    names = [name for name, wanted in only.items() if wanted] or list(only)
    return names if chosen.no_bfd else [*names, "bfd"]


def _logs(chosen: argparse.Namespace) -> logs.Logs:
    return logs.Logs(
        chosen.log_console,
        chosen.log_detail,
        logs.facility(chosen.log_facility),
        os.path.abspath(chosen.log_file) if chosen.log_file else None,
        chosen.no_syslog,
    )


def _enter(namespace: str, arguments: Sequence[str]) -> None:
    """Begin again inside a network namespace, unless that has been done."""
    if os.environ.get(_INSIDE) == namespace:
        return
    if not os.path.exists(f"/run/netns/{namespace}"):
        raise XlvsError(f"Network namespace {namespace} does not exist")
    command = [sys.executable, "-P", "-m", "xlvs.cli.main", "keepalived", *arguments]
    environment = {**os.environ, _INSIDE: namespace}
    os.execvpe("ip", ["ip", "netns", "exec", namespace, *command], environment)  # noqa: S606 - no shell


def _umask(chosen: argparse.Namespace, config: Config) -> int:
    """For files of ours, and of scripts: the command line's goes first."""
    for given in (chosen.umask, config.globals.umask):
        if given is not None:
            return int(given)
    return _UMASK


def _warn_of_snmp(chosen: argparse.Namespace, config: Config) -> None:
    if chosen.snmp or any(word.startswith("enable_snmp") for word in config.globals.others):
        log.warning("There is no SNMP here: `xlvs keepalived status --json` tells of the daemon")


def _allow_cores(chosen: argparse.Namespace) -> bytes | None:
    """-m and -M; what the kernel's pattern was where it has been changed."""
    if chosen.core_dump or chosen.core_dump_pattern:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (OSError, ValueError) as error:
            log.warning("Unable to allow core dumps: %s", error)
    if not chosen.core_dump_pattern:
        return None
    try:
        with open(_CORE_PATTERN, "rb") as file:
            before = file.read()
    except OSError as error:
        log.warning("%s: %s", _CORE_PATTERN, error.strerror)
        return None
    return before if _write_pattern(os.fsencode(chosen.core_dump_pattern)) else None


def _write_pattern(pattern: bytes) -> bool:
    try:
        with open(_CORE_PATTERN, "wb") as file:
            file.write(pattern)
    except OSError as error:
        log.warning("%s: %s", _CORE_PATTERN, error.strerror)
        return False
    return True


def _go_to_background() -> None:
    """daemon(7): a session of its own, no terminal, no working directory that could be in the way."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def signal_number(name: str) -> int:
    """The number of a signal by keepalived's name of its purpose."""
    if name not in SIGNALS:
        raise XlvsError(f"Unknown sigfunc {name}")
    return int(SIGNALS[name])
