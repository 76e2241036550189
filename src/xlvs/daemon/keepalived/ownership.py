"""What of a data plane's rules is ours, kept in a file for whoever comes after a killed daemon.

Rules outlive every process. A daemon that starts again finds them, takes them over as they are,
and knows by this file what it may delete: never what an operator put there by hand.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field

from xlvs.model import DestinationKey, ServiceKey

Owned = dict[ServiceKey, set[DestinationKey]]


@dataclass(slots=True)
class Ownership:
    """Services and destinations of ours, and what we knew of real servers.

    ``orders`` are operators', ``down`` is what checks had taken out; both by the names of virtual and
    real server.
    """

    owned: Owned = field(default_factory=dict)
    orders: dict[tuple[str, str], str] = field(default_factory=dict)
    down: set[tuple[str, str]] = field(default_factory=set)


def read(path: str) -> Ownership | None:
    """What a daemon before us left; None where there is nothing, or nothing that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        owned = {
            _service(each["key"]): {_destination(one) for one in each["destinations"]}
            for each in content["services"]
        }
        orders = {(virtual, real): order for virtual, real, order in content["orders"]}
        down = {(virtual, real) for virtual, real in content["down"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Ownership(owned, orders, down)


def write(path: str, ownership: Ownership) -> None:
    """Leave it for the next one, in one step."""
    content = {
        "services": [
            {"key": _words(key), "destinations": [_name_words(name) for name in sorted(names, key=_sortable)]}
            for key, names in ownership.owned.items()
        ],
        "orders": [[*key, order] for key, order in ownership.orders.items()],
        "down": sorted(map(list, ownership.down)),
    }
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.rename(f"{path}.new", path)


def forget(path: str) -> None:
    """Nothing is ours any more."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _words(key: ServiceKey) -> list[object]:
    return [key.family, key.protocol, key.address.hex(), key.port, key.fwmark]


def _service(words: list[object]) -> ServiceKey:
    family, protocol, address, port, mark = words
    return ServiceKey(
        _number(family), _number(protocol), bytes.fromhex(str(address)), _number(port), _number(mark)
    )


def _name_words(name: DestinationKey) -> list[object]:
    return [name.family, name.address.hex(), name.port]


def _destination(words: list[object]) -> DestinationKey:
    family, address, port = words
    return DestinationKey(_number(family), bytes.fromhex(str(address)), _number(port))


def _sortable(name: DestinationKey) -> tuple[int, bytes, int]:
    return name.family, name.address, name.port


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value
