"""This machine, as far as a real server's preparation looks at it: sysctls, addresses, routes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from xlvs.errors import XlvsError


def run(command: Sequence[str]) -> str:
    """Run a command that must succeed, and return its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise XlvsError(f"the program {command[0]} is missing: see packages.txt") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise XlvsError(f"'{' '.join(command)}' failed" + (f": {words[-1]}" if words else ""))
    return done.stdout


def sysctl_path(name: str) -> str:
    """The file of a sysctl written with slashes or dots, as sysctl(8) reads names."""
    separated = name if "/" in name else name.replace(".", "/")
    return f"/proc/sys/{separated}"


def read_sysctl(name: str) -> str | None:
    """A sysctl's value, or None where this kernel (or interface) has none."""
    try:
        with open(sysctl_path(name), encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl."""
    try:
        with open(sysctl_path(name), "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise XlvsError(f"cannot set {name} to {value}: {error.strerror}") from error


def addresses() -> dict[str, list[str]]:
    """Each interface's addresses with prefix lengths; link-local ones are left out."""
    found: dict[str, list[str]] = {}
    for link in _ip_json("address", "show"):
        found[link["ifname"]] = [
            f"{entry['local']}/{entry['prefixlen']}"
            for entry in link.get("addr_info", [])
            if entry.get("scope") != "link"
        ]
    return found


def default_interface() -> str | None:
    """The interface of the default route, IPv4's before IPv6's."""
    for family in ("-4", "-6"):
        for route in _ip_json(family, "route", "show", "default"):
            # A multipath route has its devices one level down.
            device = route.get("dev") or next((hop["dev"] for hop in route.get("nexthops", [])), None)
            if device:
                return str(device)
    return None


def link_is_up(interface: str) -> bool | None:
    """Whether an interface is set up; None where there is no such interface."""
    for link in _ip_json("link", "show"):
        if link["ifname"] == interface:
            return "UP" in link["flags"]
    return None


def _ip_json(*arguments: str) -> list[Any]:
    text = run(["ip", "-json", *arguments])
    listed: list[Any] = json.loads(text) if text.strip() else []
    return [entry for entry in listed if entry]
