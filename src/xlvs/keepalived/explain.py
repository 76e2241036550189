"""A configuration as it takes effect, each value with the place it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

from xlvs.keepalived.config import Config, Origin


def explain(config: Config) -> Iterator[str]:
    """Lines of text: blocks with their fields, "# FILE:LINE" behind what was written there.

    A value without a place is a default, or follows from another one.
    """
    for item in fields(config):
        yield from _field(item, getattr(config, item.name), {}, 0)


def _field(item: Field[Any], value: Any, origins: Mapping[str, Origin], depth: int) -> Iterator[str]:
    if item.name == "origins":
        return
    origin = origins.get(item.name)
    place = f"  # {origin.file}:{origin.line}" if origin else ""
    indent = "    " * depth
    if isinstance(value, tuple) and value and all(is_dataclass(entry) for entry in value):
        for entry in value:
            yield from _block(item.name, entry, place, depth)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _block(item.name, value, place, depth)
    elif depth or value:
        default = "" if origin or value != _default(item) else "  # default"
        yield f"{indent}{item.name} {_plain(value)}{place or default}"


def _block(name: str, value: Any, place: str, depth: int) -> Iterator[str]:
    indent = "    " * depth
    title = f"{name} {type(value).__name__}"
    own = getattr(value, "origins", {})
    yield f"{indent}{title} {{{place}"
    for item in fields(value):
        yield from _field(item, getattr(value, item.name), own, depth + 1)
    yield f"{indent}}}"


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else MISSING


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, bytes):
        return value.hex(":") or "none"
    if isinstance(value, tuple):
        return " ".join(_plain(entry) for entry in value) or "none"
    text = str(value)
    if not text or any(character in text for character in ' \t\n"#!{}'):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return text
