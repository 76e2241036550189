"""``xlvs sysctl``: IPVS's sysctls under their own names."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from errno import ENOENT, EPERM
from pathlib import Path

from xlvs.cli.engine import ENGINES, open_data_plane
from xlvs.dataplane import sysctls
from xlvs.dataplane.port import DataPlane
from xlvs.errors import IpvsError, XlvsError
from xlvs.model import SysctlEntry

SUMMARY = "read and change IPVS's sysctls (drop_entry, conn_reuse_mode, ...), and xlvs's own"


def main(arguments: Sequence[str]) -> int:
    """Run ``xlvs sysctl ARGUMENTS``: all that is to be changed is, or nothing."""
    parser = argparse.ArgumentParser(
        prog="xlvs sysctl",
        description=f"{SUMMARY}; without a name all are shown",
        epilog="Names may carry their net.ipv4.vs. in front. What has no effect on XDP says so. "
        f"Behind the kernel's come xlvs's own: {', '.join(sorted(sysctls.OWN))}.",
    )
    parser.add_argument("-a", "--all", action="store_true", help="show all, as without a name")
    parser.add_argument("-w", "--write", action="store_true", help="names without a value are a mistake")
    parser.add_argument("-n", "--values", action="store_true", help="show values without names")
    parser.add_argument(
        "-p",
        "--load",
        metavar="FILE",
        action="append",
        default=[],
        help="set what a file of sysctl.conf's form says of net.ipv4.vs (- for standard input)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--engine", choices=ENGINES, default="", help="whose (default: xdp, or XLVS_ENGINE)")
    parser.add_argument("names", nargs="*", metavar="NAME[=VALUE]")
    chosen = parser.parse_args(arguments)
    wanted = [_split(each) for path in chosen.load for each in _lines(path)]
    wanted += [_split(each) for each in chosen.names]
    for name, value in wanted:
        if chosen.write and value is None:
            raise XlvsError(f"{name} needs a value: NAME=VALUE")
    plane = open_data_plane(chosen.engine)
    written = [(name, value) for name, value in wanted if value is not None]
    if written:
        _write(plane, written)
    found = {each.name: each for each in plane.sysctls()}
    for name, _ in wanted:
        if name not in found:
            raise _unknown(name)
    entries = [found[name] for name, _ in wanted] if wanted and not chosen.all else list(found.values())
    if chosen.json:
        print(json.dumps({each.name: _document(each) for each in entries}, indent=2))
    else:
        _print(entries, chosen.values)
    for name in dict.fromkeys(name for name, _ in written):
        if found[name].note:
            print(f"xlvs: {sysctls.PREFIX}{name}: {found[name].note}", file=sys.stderr)
    return 0


def _lines(path: str) -> Iterator[str]:
    """NAME=VALUE of the lines about IPVS; a line that begins with - may name what is not there."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise XlvsError(f"cannot read {path}: {error}") from None
    for line in text.splitlines():
        name, _, value = line.strip().partition("=")
        name = name.strip().replace("/", ".")
        lenient = name.startswith("-")
        name = name.removeprefix("-")
        if name.startswith(sysctls.PREFIX) and not (lenient and sysctls.bare_name(name) is None):
            yield f"{name}={value.strip()}"


def _split(argument: str) -> tuple[str, str | None]:
    name, equals, value = argument.partition("=")
    bare = sysctls.bare_name(name.strip())
    return bare or name.strip(), value if equals else None


def _write(plane: DataPlane, written: list[tuple[str, str]]) -> None:
    with plane.transaction() as transaction:
        for name, value in written:
            try:
                transaction.set_sysctl(name, value)
            except IpvsError as error:
                if error.errno == ENOENT:
                    raise _unknown(name) from None
                if error.errno == EPERM:
                    raise XlvsError(f"{sysctls.PREFIX}{name}: {error}") from None
                takes = sysctls.accepted(name)
                raise XlvsError(
                    f"{sysctls.PREFIX}{name} does not take '{value}'"
                    f"{f' (it takes {takes})' if takes else ''}; nothing was changed"
                ) from None


def _unknown(name: str) -> XlvsError:
    if name in sysctls.OWN:
        return XlvsError(
            f"the kernel's IPVS has no sysctl '{name}': it is of xlvs's own engine (--engine xdp)"
        )
    return XlvsError(f"IPVS has no sysctl '{name}': `xlvs sysctl` lists them")


def _print(entries: list[SysctlEntry], values_only: bool) -> None:
    for each in entries:
        value = sysctls.show(each.value)
        if values_only:
            print(value)
            continue
        line = f"{sysctls.PREFIX}{each.name} = {value}"
        print(f"{line:<48} # {each.note}" if each.note else line)


def _document(entry: SysctlEntry) -> dict[str, object]:
    return {
        "value": entry.value[0] if len(entry.value) == 1 else list(entry.value),
        "note": entry.note or None,
        "own": entry.own,
    }
