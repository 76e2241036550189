"""A virtual server's pool: who is in it, what is said, run and told, in keepalived's own order.

The expected messages are those that Debian's keepalived 2.2.7 logged in the guest for the same events.
"""

from __future__ import annotations

import itertools
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from xlvs.daemon.keepalived.pool import Action, Call, Mail, Pool, Say, Tell
from xlvs.health.checks import Script
from xlvs.health.verdict import Health
from xlvs.keepalived.config import RealServer, Vip, VirtualServer
from xlvs.model import AF_INET, AF_INET6, Forward, ServiceFlag

UP, DOWN = Health(True, 1), Health(False, 1)


def real(last: int, weight: int = 1, **more: Any) -> RealServer:
    up, down = Script(("up", str(last))), Script(("down", str(last)))
    return RealServer(ip_address(f"10.9.0.{last}"), 80, weight, notify_up=up, notify_down=down, **more)


def server(*servers: RealServer, **more: Any) -> VirtualServer:
    vip = Vip(AF_INET, ip_address("10.9.0.1"), 80)
    scripts = {"quorum_up": Script(("qup",)), "quorum_down": Script(("qdown",))}
    return VirtualServer("10.9.0.1 80", (vip,), servers=servers, **{**scripts, **more})


def key(last: int) -> Any:
    return ip_address(f"10.9.0.{last}"), 80


def said(actions: list[Action]) -> list[str]:
    return [each.text for each in actions if isinstance(each, Say)]


def called(actions: list[Action]) -> list[str]:
    return [" ".join(each.script.arguments) for each in actions if isinstance(each, Call)]


def told(actions: list[Action]) -> list[str]:
    return [each.line for each in actions if isinstance(each, Tell)]


def inside(pool: Pool, now: float = 0.0) -> dict[int, int]:
    (wanted,) = pool.wanted(now)
    return {each.key.address[3]: each.weight for each in wanted.destinations}


def begun(configured: VirtualServer, **states: Health) -> Pool:
    pool = Pool(configured, {key(int(name[1:])): health for name, health in states.items()})
    pool.begin()
    return pool


SORRY = RealServer(ip_address("10.9.0.99"), 80)
VS = "VS [10.9.0.1]:tcp:80"


def test_it_begins_with_quorum_where_nothing_speaks_against_it() -> None:
    pool = Pool(server(real(11), real(12, 2)), {})
    actions = pool.begin()
    assert said(actions) == [f"Gained quorum 1+0=1 <= 3 for {VS}"]
    assert called(actions) == ["qup"]
    assert told(actions) == ["VS [10.9.0.1]:tcp:80 UP"]
    assert inside(pool) == {11: 1, 12: 2}


def test_it_begins_without_where_all_are_down() -> None:
    pool = Pool(server(real(11), quorum=2, sorry=SORRY), {key(11): DOWN})
    actions = pool.begin()
    assert said(actions) == [
        f"Starting with quorum down 2-0=2 > 0 for {VS}",
        f"Adding sorry server [10.9.0.99]:tcp:80 to {VS}",
        f"Removing alive servers from the pool for {VS}",
    ]
    assert called(actions) == ["qdown"]
    assert inside(pool) == {99: 1}


def test_a_server_goes_and_comes_and_scripts_are_called_once() -> None:
    pool = begun(server(real(11), real(12)))
    actions = pool.heard(key(11), DOWN, 1.0)
    assert said(actions) == [f"Removing service [10.9.0.11]:tcp:80 from {VS}"]
    assert called(actions) == ["down 11"]
    assert told(actions) == ["RS [10.9.0.11]:tcp:80 [10.9.0.1]:tcp:80 DOWN"]
    assert inside(pool) == {12: 1}
    assert pool.heard(key(11), DOWN, 2.0) == []
    actions = pool.heard(key(11), UP, 3.0)
    assert said(actions) == [f"Adding service [10.9.0.11]:tcp:80 to {VS}"]
    assert called(actions) == ["up 11"]
    assert inside(pool) == {11: 1, 12: 1}
    assert pool.heard(key(11), UP, 4.0) == []


def test_the_sorry_server_stands_in_while_quorum_is_lost() -> None:
    pool = begun(server(real(11), real(12, 2, inhibit_on_failure=True), quorum=2, sorry=SORRY))
    actions = pool.heard(key(12), DOWN, 1.0)
    assert said(actions) == [
        f"Disabling service [10.9.0.12]:tcp:80 of {VS}",
        f"Lost quorum 2-0=2 > 1 for {VS}",
        f"Adding sorry server [10.9.0.99]:tcp:80 to {VS}",
        f"Removing alive servers from the pool for {VS}",
    ]
    assert called(actions) == ["down 12", "qdown"]
    assert inside(pool) == {12: 0, 99: 1}
    actions = pool.heard(key(12), Health(True, 2), 2.0)
    assert said(actions) == [
        f"Enabling service [10.9.0.12]:tcp:80 of {VS}",
        f"Gained quorum 2+0=2 <= 3 for {VS}",
        f"Removing sorry server [10.9.0.99]:tcp:80 from {VS}",
        f"Adding alive servers to the pool for {VS}",
    ]
    assert called(actions) == ["up 12", "qup"]
    assert inside(pool) == {11: 1, 12: 2}


def test_without_a_sorry_server_those_alive_go_on_below_quorum() -> None:
    pool = begun(server(real(11), real(12), quorum=2))
    assert called(pool.heard(key(11), DOWN, 1.0)) == ["down 11", "qdown"]
    assert inside(pool) == {12: 1}


def test_an_inhibited_sorry_server_waits_with_weight_0() -> None:
    sorry = RealServer(ip_address("10.9.0.99"), 80, inhibit_on_failure=True)
    pool = begun(server(real(11), sorry=sorry))
    assert inside(pool) == {11: 1, 99: 0}
    pool.heard(key(11), DOWN, 1.0)
    assert inside(pool) == {99: 1}


def test_a_server_that_began_as_down_is_told_of_when_that_is_confirmed() -> None:
    pool = begun(server(real(11), real(12)), s11=DOWN)
    actions = pool.heard(key(11), DOWN, 1.0, first=True)
    assert (said(actions), called(actions)) == ([], ["down 11"])
    assert pool.heard(key(12), UP, 1.0, first=True) == []


def test_a_changed_weight_is_an_edit_and_counts_for_quorum() -> None:
    pool = begun(server(real(11), real(12), quorum=2))
    actions = pool.heard(key(11), Health(True, 0), 1.0)
    assert said(actions)[0] == f"Changing weight from 1 to 0 for active service [10.9.0.11]:tcp:80 of {VS}"
    assert called(actions) == ["qdown"]
    assert inside(pool) == {11: 0, 12: 1}


def test_drained_and_disabled_by_an_operator() -> None:
    pool = begun(server(real(11), real(12)))
    assert called(pool.ordered(key(11), "drain", 1.0)) == []
    assert inside(pool) == {11: 0, 12: 1}
    assert called(pool.ordered(key(11), "disable", 2.0)) == ["down 11"]
    assert inside(pool) == {12: 1}
    assert called(pool.heard(key(11), DOWN, 3.0)) == []
    assert called(pool.ordered(key(11), "", 4.0)) == []
    assert called(pool.heard(key(11), UP, 5.0)) == ["up 11"]
    assert inside(pool) == {11: 1, 12: 1}


def test_draining_has_a_limit() -> None:
    pool = begun(server(real(11), real(12, inhibit_on_failure=True), real(13), drain_limit=30.0))
    pool.ordered(key(11), "drain", 100.0)
    pool.heard(key(12), DOWN, 110.0)
    assert pool.deadline(110.0) == 130.0
    assert inside(pool, 129.9) == {11: 0, 12: 0, 13: 1}
    assert inside(pool, 130.0) == {12: 0, 13: 1}
    assert pool.deadline(130.0) == 140.0
    assert inside(pool, 140.0) == {13: 1}
    pool.heard(key(12), UP, 150.0)
    assert inside(pool, 150.0) == {12: 1, 13: 1}
    assert pool.deadline(150.0) is None
    # One that was down from the beginning: as an earlier daemon left it, with its connections.
    pool = begun(server(real(11, inhibit_on_failure=True), real(12), drain_limit=30.0), s11=DOWN)
    pool.heard(key(11), DOWN, 5.0, first=True)
    assert (inside(pool, 34.9), inside(pool, 35.0)) == ({11: 0, 12: 1}, {12: 1})
    # Its agent, or a MISC_CHECK, has it drained. One that is configured so has no limit.
    pool = begun(server(real(11), real(12, weight=0), real(13), drain_limit=30.0))
    pool.heard(key(11), Health(up=True, weight=0), 200.0)
    assert inside(pool, 229.9) == {11: 0, 12: 0, 13: 1}
    assert inside(pool, 230.0) == {12: 0, 13: 1}
    pool.heard(key(11), Health(up=True, weight=1), 240.0)
    assert inside(pool, 500.0) == {11: 1, 12: 0, 13: 1}


def test_a_reload_keeps_what_is_known() -> None:
    pool = begun(server(real(11), real(12), real(13)))
    pool.heard(key(11), DOWN, 1.0)
    states = {key(11): DOWN, key(12): Health(True, 4), key(14): UP}
    actions = pool.reconfigured(server(real(11), real(12, 4), real(14)), states, 2.0)
    assert said(actions) == [
        "service [10.9.0.13]:tcp:80 no longer exist",
        f"Removing service [10.9.0.13]:tcp:80 from {VS}",
        f"Changing weight from 1 to 4 for active service [10.9.0.12]:tcp:80 of {VS}",
    ]
    assert called(actions) == ["down 13"]
    assert inside(pool) == {12: 4, 14: 1}


def test_the_same_configuration_again_says_nothing() -> None:
    configured = server(real(11), real(12, inhibit_on_failure=True), sorry=SORRY, quorum=2)
    pool = begun(configured)
    pool.heard(key(12), DOWN, 1.0)
    before = inside(pool)
    assert pool.reconfigured(configured, {key(11): UP, key(12): DOWN}, 2.0) == []
    assert inside(pool) == before


def test_the_end_is_told_with_omega_only() -> None:
    quiet, loud = begun(server(real(11))), begun(server(real(11), omega=True))
    assert called(quiet.end()) == []
    actions = loud.end()
    assert said(actions) == [f"Shutting down service [10.9.0.11]:tcp:80 from {VS}"]
    assert called(actions) == ["down 11", "qdown"]
    assert called(begun(server(real(11))).end(removed=True)) == ["down 11", "qdown"]


def test_mail_says_what_happened() -> None:
    pool = begun(server(real(11, smtp_alert=True), smtp_alert=True))
    mails = [each for each in pool.heard(key(11), DOWN, 1.0) if isinstance(each, Mail)]
    assert mails == [
        Mail(
            "Realserver [10.9.0.11]:tcp:80 of virtual server [10.9.0.1]:tcp:80 - DOWN",
            "=> CHECK failed on service <=",
        ),
        Mail("Virtualserver [10.9.0.1]:tcp:80 - DOWN", "=> Lost quorum 1-0=1 > 0 <="),
    ]


def test_groups_marks_and_families_become_services() -> None:
    vips = (
        Vip(AF_INET, ip_address("10.9.0.3"), 53),
        Vip(AF_INET6, ip_address("2001:db8::1"), 54),
        Vip(AF_INET, None, 0, 7),
    )
    configured = VirtualServer(
        "group G",
        vips,
        protocol=17,
        group="G",
        scheduler="sh",
        flags=("sh-port", "sh-fallback"),
        ops=True,
        persistence=60,
        servers=(RealServer(ip_address("10.9.0.11"), 5353), RealServer(ip_address("10.9.0.12"), 0)),
    )
    pool = Pool(configured, {})
    assert said(pool.begin()) == ["Gained quorum 1+0=1 <= 2 for VS [G]:0"]
    four, six, mark = pool.wanted(0.0)
    assert (four.service.key.protocol, four.service.key.port, four.service.netmask) == (17, 53, 0xFFFFFFFF)
    assert (six.service.key.family, six.service.netmask) == (AF_INET6, 128)
    assert (mark.service.key.fwmark, mark.service.key.protocol, mark.service.key.address) == (7, 0, b"")
    flags = ServiceFlag.SCHED1 | ServiceFlag.SCHED2 | ServiceFlag.ONEPACKET | ServiceFlag.PERSISTENT
    assert (four.service.flags, four.service.timeout) == (flags, 60)
    assert [each.key.port for each in four.destinations] == [5353, 53]


def test_only_translation_changes_ports() -> None:
    for forward, port in ((Forward.MASQ, 8080), (Forward.FULLNAT, 8080), (Forward.ROUTE, 80)):
        servers = (RealServer(ip_address("10.9.0.11"), 8080, forward=forward),)
        (wanted,) = begun(server(*servers)).wanted(0.0)
        assert wanted.destinations[0].key.port == port


EVENTS = st.lists(st.tuples(st.sampled_from((11, 12, 13)), st.booleans(), st.integers(0, 3)), max_size=30)


@given(EVENTS, st.integers(1, 5), st.integers(0, 4), st.booleans())
def test_scripts_alternate_and_the_pool_is_what_the_last_events_say(
    events: list[tuple[int, bool, int]], quorum: int, hysteresis: int, with_sorry: bool
) -> None:
    sorry = SORRY if with_sorry else None
    hysteresis = min(hysteresis, quorum - 1)
    servers = (real(11), real(12, 2), real(13, 0, inhibit_on_failure=True))
    pool = Pool(server(*servers, quorum=quorum, hysteresis=hysteresis, sorry=sorry), {})
    calls = called(pool.begin())
    last: dict[int, tuple[bool, int]] = {11: (True, 1), 12: (True, 2), 13: (True, 0)}
    for number, (name, up, weight) in enumerate(events):
        calls += called(pool.heard(key(name), Health(up, weight), float(number)))
        last[name] = (up, weight)
    for kind in ("11", "12", "13"):
        words = [each.split()[0] for each in calls if each.endswith(kind)]
        assert words == ["down", "up"] * (len(words) // 2) + ["down"] * (len(words) % 2)
    quorums = [each for each in calls if each.startswith("q")]
    assert all(before != after for before, after in itertools.pairwise(quorums))
    assert (quorums[-1] == "qup") == pool.quorum.up
    found = inside(pool)
    assert (99 in found) == (with_sorry and not pool.quorum.up)
    for name, (up, weight) in last.items():
        if up and (pool.quorum.up or not with_sorry):
            assert found[name] == weight
        else:
            assert found.get(name) == (0 if name == 13 else None)
