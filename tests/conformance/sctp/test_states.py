"""Every chunk in every state, as real IPVS has it: state, timeout and who counts as active."""

from __future__ import annotations

import json

import pytest

from tests.conformance.sctp.program import Programs
from tests.conformance.sctp.record import RECORDING
from xlvs.dataplane import layout

pytestmark = pytest.mark.root


def test_every_chunk_in_every_state() -> None:
    record = json.loads(RECORDING.read_text())
    differences = []
    with Programs() as programs:
        for method, path, state, seconds, active, inactive in record:
            mine = programs.outcome(method, path)
            # The kernel tells what is left of the timeout, up to some seconds later: the guest is slow.
            same = (mine.state, mine.active, mine.inactive) == (state, active, inactive)
            if not same or mine.seconds - seconds not in range(4):
                differences.append(f"{method} {path}: {state} {seconds}s {active}/{inactive}, not {mine}")
    assert not differences, "\n".join(differences)


def test_the_recording_has_every_state_and_chunk() -> None:
    """Under NAT all but NONE are met, from each of them all steps are taken."""
    record = json.loads(RECORDING.read_text())
    met = {state for _, _, state, *_ in record}
    assert met >= set(layout.SCTP_STATES) - {"NONE"}
    assert len(record) > 300
