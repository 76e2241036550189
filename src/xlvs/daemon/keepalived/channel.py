"""What goes over the socket between the parent and a child: frames of a kind and a body.

Configurations are pickled (both ends are the same program, started by each other), all else is JSON.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
from collections.abc import Mapping
from enum import IntEnum

from xlvs.keepalived.config import Config

_HEADER = struct.Struct("!BI")


class Kind(IntEnum):
    """What a frame says."""

    CONFIG = 1  # down: begin with this configuration, or go on with it
    ASK = 2  # down: {"id": N, "request": {...}}
    ANSWER = 3  # up: {"id": N, "answer": {...}} or {"id": N, "error": "..."}
    EVENT = 4  # both ways: one child's, for the others
    READY = 5  # up: the configuration is at work
    STOP = 6  # down: clean up and end


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """A frame as it is sent."""
    return _HEADER.pack(kind, len(body)) + body


def json_frame(kind: Kind, content: Mapping[str, object]) -> bytes:
    """A frame of JSON."""
    return frame(kind, json.dumps(content).encode())


def config_frame(config: Config) -> bytes:
    """A frame of a configuration."""
    return frame(Kind.CONFIG, pickle.dumps(config))


def config_of(body: bytes) -> Config:
    """The configuration in a frame from the parent."""
    config = pickle.loads(body)  # noqa: S301 - from our own parent, over a socket that nobody else has
    assert isinstance(config, Config)
    return config


def json_of(body: bytes) -> dict[str, object]:
    """The JSON in a frame."""
    content = json.loads(body)
    assert isinstance(content, dict)
    return content


async def receive(reader: asyncio.StreamReader) -> tuple[Kind, bytes] | None:
    """The next frame, or None where the other end is gone."""
    try:
        kind, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        return Kind(kind), await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
