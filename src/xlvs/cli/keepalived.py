"""``xlvs keepalived``: VRRP and health checks from a keepalived.conf."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from xlvs.errors import XlvsError

if TYPE_CHECKING:
    from xlvs.keepalived.config import Outcome

SUMMARY = "VRRP and health checks from a keepalived.conf, in keepalived's place"
DEFAULT_FILE = "/etc/keepalived/keepalived.conf"


def main(arguments: Sequence[str]) -> int:
    """Run ``keepalived ARGUMENTS`` and return the exit status (that of keepalived -t for -t)."""
    chosen = _parser().parse_args(arguments)
    outcome = read(chosen.use_file, chosen.config_id)
    if chosen.config_test is not None:
        return _test(outcome, chosen.config_test)
    if chosen.explain:
        return _explain(outcome)
    raise XlvsError("only -t and --explain are there: running comes with the daemon")


def read(path: str, config_id: str | None) -> Outcome:
    """The configuration as this machine reads it; ``config_id`` None: the first part of its name."""
    from xlvs.daemon.keepalived.machine import Machine
    from xlvs.keepalived.parse import parse

    if config_id is None:
        config_id = os.uname().nodename.partition(".")[0]
    return parse(path, config_id=config_id, host=Machine())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xlvs keepalived", description=SUMMARY, allow_abbrev=False)
    parser.add_argument("-f", "--use-file", metavar="FILE", default=DEFAULT_FILE, help="the configuration")
    parser.add_argument("-i", "--config-id", metavar="ID", help='what lines of "@ID" are compared with')
    parser.add_argument(
        "-t",
        "--config-test",
        metavar="LOG_FILE",
        nargs="?",
        const="",
        help="only check the configuration; messages go to standard error, or are appended to LOG_FILE",
    )
    parser.add_argument(
        "--explain", action="store_true", help="print the effective configuration and where it comes from"
    )
    return parser


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
