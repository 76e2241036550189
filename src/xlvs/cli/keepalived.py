"""``xlvs keepalived``: VRRP and health checks from a keepalived.conf."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from xlvs.cli.engine import engine_name, open_data_plane
from xlvs.daemon.keepalived import commandline

if TYPE_CHECKING:
    from xlvs.dataplane.port import DataPlane
    from xlvs.keepalived.config import Outcome

SUMMARY = "VRRP and health checks from a keepalived.conf, in keepalived's place"


def main(arguments: Sequence[str]) -> int:
    """Run ``keepalived ARGUMENTS`` and return the exit status (that of keepalived -t for -t)."""
    if arguments and arguments[0] in commandline.COMMANDS:
        return _ask(arguments[0], arguments[1:])
    if arguments and arguments[0] in commandline.GENHASH:
        from xlvs.daemon.keepalived import genhash

        return genhash.main(arguments[1:])
    chosen = commandline.parser(SUMMARY).parse_args(arguments)
    if chosen.version:
        return _version()
    if chosen.signum:
        from xlvs.daemon.keepalived.startup import signal_number

        print(signal_number(chosen.signum))
        return 0
    if chosen.config_test is not None:
        return _test(read(chosen.use_file, chosen.config_id, chosen.all_config), chosen.config_test)
    if chosen.explain:
        return _explain(read(chosen.use_file, chosen.config_id, chosen.all_config))
    from xlvs.daemon.keepalived import startup

    chosen.engine = engine_name(chosen.engine)
    return startup.run(
        chosen,
        arguments,
        lambda: read(chosen.use_file, chosen.config_id, chosen.all_config),
        lambda: _open(chosen.engine),
    )


def read(path: str, config_id: str | None, everything: bool = False) -> Outcome:
    """The configuration as this machine reads it; ``config_id`` None: the first part of its name.

    ``everything``: no file that is included may be missing.
    """
    from xlvs.daemon.keepalived.machine import Machine
    from xlvs.keepalived.parse import parse

    return parse(path, config_id=commandline.config_id(config_id), host=Machine(), everything=everything)


def _open(engine: str) -> DataPlane:
    """The data plane for the checkers; who has not brought xlvs's own up is told."""
    import logging

    from xlvs.cli.engine import open_plane
    from xlvs.dataplane.xdp import XdpDataPlane

    plane = open_data_plane(engine)
    if isinstance(plane, XdpDataPlane) and not open_plane().is_up:
        logging.getLogger(__name__).warning(
            "The data plane is not up: services are entered, and packets pass once `xlvs up` has run"
        )
    return plane


def _ask(command: str, arguments: Sequence[str]) -> int:
    from xlvs.daemon.keepalived import control, listing

    request, chosen = commandline.request_of(command, arguments)
    answer = control.ask(control.default_path(chosen.instance_name), request)
    if chosen.json:
        print(json.dumps(answer, indent=2))
    else:
        for line in listing.lines(command, answer):
            print(line)
    return 0


def _version() -> int:
    from xlvs import __version__

    print(f"Keepalived xlvs v{__version__}", file=sys.stderr)
    return 0


def _test(outcome: Outcome, log_file: str) -> int:
    if log_file:
        with open(log_file, "a", encoding="utf-8", errors="surrogateescape") as stream:
            _tell(outcome, stream)
    else:
        _tell(outcome, sys.stderr)
    return outcome.status


def _explain(outcome: Outcome) -> int:
    from xlvs.keepalived.explain import explain

    _tell(outcome, sys.stderr)
    if outcome.config is None:
        return outcome.status
    for line in explain(outcome.config):
        print(line)
    return 0


def _tell(outcome: Outcome, stream: TextIO) -> None:
    for message in outcome.messages:
        # Names in the configuration may be any bytes: a terminal gets them escaped.
        print(
            str(message).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), file=stream
        )
