"""Our machines do what Debian's keepalived did when it was told the same at the same time (record.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.interop.vrrp.dialogues import Dialogue, dialogues
from tests.interop.vrrp.record import RECORDED
from tests.interop.vrrp.replay import difference, replay

# Where we differ on purpose: (dialogue, list), with the reason.
_AH = "our master compares AH's numbers with those of the sender, not with its own (machine.py)"
DEVIATIONS = {
    ("AH older while master", "notified"): _AH,
    ("AH older while master", "announced"): _AH,
    ("AH older while master", "sent"): _AH,
    ("AH lower heard while master", "notified"): _AH,
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, list[Any]]]:
    made: dict[str, dict[str, list[Any]]] = json.loads(RECORDED.read_text())
    return made


@pytest.mark.parametrize("dialogue", dialogues(), ids=lambda dialogue: str(dialogue.name))
def test_the_same_as_keepalived(dialogue: Dialogue, recorded: dict[str, dict[str, list[Any]]]) -> None:
    real, ours = recorded[dialogue.name], replay(dialogue)
    for what in ("notified", "announced", "sent"):
        found = difference(real[what], ours[what], repeated=what == "sent")
        assert (found is None) == ((dialogue.name, what) not in DEVIATIONS), f"{what}: {found}"


def test_a_difference_is_seen(recorded: dict[str, dict[str, list[Any]]]) -> None:
    real = recorded["higher for a while"]
    for what in ("notified", "sent"):
        other = [[line[0] + 2, *line[1:]] for line in real[what]]
        assert difference(real[what], other, repeated=what == "sent")
        assert difference(real[what], real[what][:-2], repeated=what == "sent")


def test_every_dialogue_is_recorded(recorded: dict[str, dict[str, list[Any]]]) -> None:
    assert list(recorded) == [dialogue.name for dialogue in dialogues()]
