"""Answers of the daemon as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def lines(command: str, answer: Mapping[str, Any]) -> Iterator[str]:
    """An answer to a command, line by line."""
    if command == "status":
        yield from _status(answer)
    elif command == "servers":
        yield from _servers(answer.get("virtual_servers", ()))
    elif command in ("drain", "disable", "enable"):
        for each in answer.get("changed", ()):
            yield f"{each['server']} of {each['virtual']}: {each['order'] or 'as its checks say'}"
    elif command == "reload":
        yield "reloaded"
    else:
        yield from _plain(answer)


def _status(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"xlvs keepalived {answer.get('version')}, pid {answer.get('pid')}"
    for name, child in answer.get("children", {}).items():
        details = "  ".join(
            f"{key}={value if isinstance(value, int | float | str) else json.dumps(value)}"
            for key, value in child.items()
            if key != "pid"
        )
        yield f"  {name:<9} pid {child.get('pid')}  {details}".rstrip()


def _servers(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for virtual in found:
        quorum = virtual["quorum"]
        word = "quorum" if quorum["up"] else "NO QUORUM"
        limits = f"{quorum['quorum']} +- {quorum['hysteresis']}"
        yield f"{virtual['name']} {virtual['scheduler']}  {word} ({limits})"
        for server in virtual["servers"]:
            weight = "out" if server["weight"] is None else f"weight {server['weight']}"
            order = f" ({server['order']})" if server["order"] else ""
            yield f"  -> {server['name']:<30} {server['state']}{order}, {weight}"
            for check in server["checks"]:
                state = "up" if check["up"] else "DOWN"
                ran = (
                    f"{check['attempts']} asked, {check['failures']} failed"
                    if check["ran"]
                    else "not asked yet"
                )
                last = f": {check['last']}" if check["last"] else ""
                yield f"       {check['type']:<10} {state:<4} {ran}{last}"
        if virtual["sorry"]:
            word = "serves" if virtual["sorry"]["serving"] else "waits"
            yield f"  -> {virtual['sorry']['name']:<30} sorry server, {word}"


def _plain(answer: Any, depth: int = 0) -> Iterator[str]:
    """Anything else: names and values, what is inside further in."""
    indent = "  " * depth
    for key, value in answer.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _plain(value, depth + 1)
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            for each in value:
                title, *_ = [*(str(each[name]) for name in ("name", "instance") if name in each), ""]
                yield f"{indent}{key} {title}".rstrip() + ":"
                yield from _plain({k: v for k, v in each.items() if k not in ("name",)}, depth + 1)
        elif isinstance(value, list):
            yield f"{indent}{key}: {' '.join(map(str, value))}".rstrip()
        else:
            yield f"{indent}{key}: {value}"
