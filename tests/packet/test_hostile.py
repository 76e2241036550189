"""Hostile frames: none is misdelivered, each is counted once, tables stay sound, others notice nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.packet.frames import TCP, UDP, Datagram, ethernet, ip
from tests.packet.hostile.attack import SLOTS, Attack, attacking, check_bystanders
from tests.packet.hostile.site import defend
from tests.packet.sctp import Association

pytestmark = pytest.mark.root

SEED = 20261120
# On 6.1 in QEMU, which emulates every instruction, there is time for fewer.
FEWER = 8 if "IPVS_GUEST" in os.environ else 1
MILLION = 1_000_000
# Sysctls by which more packets make connections, and more errors are sent.
LENIENT = {"schedule_icmp": 1, "sloppy_tcp": 1, "sloppy_sctp": 1, "conn_reuse_mode": 3, "nat_icmp_send": 1}
STRICT = {"tcp_drop_entry": 1, "udp_drop_entry": 1, "frag_drop_entry": 1}
REFUSALS = {"drop_stray_tcp", "drop_stray_udp", "drop_stray_fragment", "drop_denied"}
REFUSALS |= {"drop_service_limit", "drop_source_limit"}
# What SYNPROXY does: else its programs did not run. A reset that a storm brings about finds no way back.
PROXIED = {"cookie_sent", "handed_answer", "drop_unanswered", "pass_cookie"}
# What must have happened in any storm, or it was none.
FACES = {"forwarded", "not_ours", "pass_no_connection", "drop_table_full", "drop_malformed", "drop_ttl"}
FACES |= {"cookie_sent"}


@pytest.fixture(scope="module")
def attack() -> Iterator[Attack]:
    with attacking(SEED) as made:
        yield made


def aftermath(attack: Attack) -> None:
    """Tables bounded and sound, and the flows that were not attacked go on."""
    assert len(list(attack.director.live_slots())) <= SLOTS
    assert attack.director.index_size() <= 2 * SLOTS
    assert not attack.trouble()
    check_bystanders(attack, attack.bystanders)


def test_every_frame_gets_what_it_may_get(attack: Attack) -> None:
    """Each frame is read by an independent reader, which says what may come of it."""
    seen = attack.judged(0, 1600 // FEWER)
    assert seen["forwarded"] > 20
    assert len(seen) > 8, seen
    aftermath(attack)


def test_a_storm(attack: Attack) -> None:
    """Two CPUs at once; as many frames as the guest can take, too."""
    outcomes = attack.storm(MILLION // 5, together=MILLION // 20)
    assert set(outcomes) >= FACES, outcomes
    attack.judged(1 << 40, 320 // FEWER)
    aftermath(attack)


def test_a_storm_with_the_defence_up() -> None:
    """What is refused is nobody's, or of a client that is denied; who is known goes on."""
    with attacking(SEED + 2, **STRICT) as attack:
        # Time stands still for limits: on a busy machine, too, they are reached.
        attack.director.tables.settings.hz = 0xFFFFFFFF
        defend(attack.director, limit=50, source_limit=5)
        seen = attack.judged(0, 1600 // FEWER)
        assert set(seen) >= {"forwarded", "drop_stray_tcp", "drop_stray_fragment", "drop_denied"}, seen
        outcomes = attack.storm(MILLION // 5, together=MILLION // 20)
        assert set(outcomes) >= REFUSALS, outcomes
        attack.judged(1 << 40, 320 // FEWER)
        aftermath(attack)


def test_a_storm_of_handshakes() -> None:
    """SYNPROXY, and what tells of clients, in a table that has room: frames get far."""
    with attacking(SEED + 3, "handshake", "handshake", "claim", "plain") as attack:
        seen = attack.judged(0, 1600 // FEWER)
        assert set(seen) >= {"cookie_sent"} | (PROXIED | {"server_refused"} if FEWER == 1 else set()), seen
        assert attack.named > 16 // FEWER, "no real server was told who its client is"
        outcomes = attack.storm(MILLION // 5, together=MILLION // 20)
        assert all(outcomes[name] > 20 for name in PROXIED), outcomes
        attack.judged(1 << 40, 320 // FEWER)
        aftermath(attack)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_million(capsys: pytest.CaptureFixture[str]) -> None:
    with attacking(SEED + 1, **LENIENT) as attack:
        outcomes = attack.storm(10 * MILLION)
        with capsys.disabled():
            print("\nten million hostile frames:")
            for name, count in outcomes.most_common():
                print(f"  {name:<24}{count:>12,}")
        assert set(outcomes) >= FACES
        attack.judged(1 << 40, 2000)
        aftermath(attack)


# What was found by the above.


@pytest.mark.parametrize("said", [0xFFFF, 0xFFFF - 39, 0xFFFF - 20])
def test_an_ipv6_length_beyond_any_packet(attack: Attack, said: int) -> None:
    segment = Datagram("fd18::1", "fd80::1", 40000, 80, TCP).segment()
    packet = ip("fd18::1", "fd80::1", TCP, segment, length=said)
    some = attack.flows[0].request
    assert attack.judge(ethernet(packet, some.target_mac, some.source_mac), "long") == "not_ours"


def test_sctp_behind_extension_headers(attack: Attack) -> None:
    """It went in a circle between two programs, until it was dropped."""
    flow = next(f for f in attack.bystanders if f.family == 6 and f.kind.port == 9)
    assert isinstance(flow.request, Association)
    for kind, body in ((60, bytes([132, 0, 1, 4, 0, 0, 0, 0])), (44, bytes([132, 0, 0, 0, 0, 0, 0, 1]))):
        packet = ip(flow.request.source, flow.request.target, kind, body + flow.request.segment())
        frame = ethernet(packet, flow.request.target_mac, flow.request.source_mac)
        assert attack.judge(frame, "behind headers") == "forwarded"
        stranger = replace(flow.request, target="fd80::dead")
        packet = ip(stranger.source, stranger.target, kind, body + stranger.segment())
        frame = ethernet(packet, stranger.target_mac, stranger.source_mac)
        assert attack.judge(frame, "a stranger's") == "not_ours"


def test_the_judge_has_eyes(attack: Attack) -> None:
    """What is wrong is seen: another server, other text, another sum, a packet of nobody."""
    flow = next(f for f in attack.bystanders if f.kind.protocol == UDP and f.kind.port == 69)
    before = flow.request.frame()
    verdict, after = attack.director.run(before)
    attack.look()
    attack._judge.check("forwarded", verdict, before, after)
    for at in (5, 11, 22, 23, 26, 33, 34, 36, len(after) - 1):
        bad = bytearray(after)
        bad[at] ^= 1
        with pytest.raises(AssertionError):
            attack._judge.check("forwarded", verdict, before, bytes(bad))
    with pytest.raises(AssertionError):
        attack._judge.check("not_ours", verdict, before, after)
    nobody = replace(flow.request, sport=9).frame()
    with pytest.raises(AssertionError):
        attack._judge.check("forwarded", verdict, nobody, after)
