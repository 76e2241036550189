"""What IPVS did, as it is kept: a compressed file for each topic, made by record.py."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

from tests.conformance.traffic.scenarios import topics

RECORDINGS = Path(__file__).with_name("recordings")

Record = dict[str, list[str]]
"""Lines of text, by the scenario's name."""


def read(topic: str) -> Record:
    """What IPVS did in each scenario of a topic; nothing where none was recorded yet."""
    try:
        content = (RECORDINGS / f"{topic}.json.xz").read_bytes()
    except FileNotFoundError:
        return {}
    record: Record = json.loads(lzma.decompress(content))
    return record


def read_topics_of(names: Iterable[str]) -> Record:
    """What IPVS did in the topics of these scenarios."""
    wanted = set(names)
    found: Record = {}
    for topic, members in topics().items():
        if not wanted.isdisjoint(members):
            found |= read(topic)
    return found


def write(topic: str, record: Record) -> None:
    """Keep a topic's recording; the same record is the same file."""
    RECORDINGS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=0)
    (RECORDINGS / f"{topic}.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))
