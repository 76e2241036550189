"""VRRP, tracking, statics and global_defs from text to the values that take effect."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from xlvs.health.checks import Script
from xlvs.keepalived.config import Config, Instance, Outcome, Route, Rule, Tracked
from xlvs.keepalived.explain import explain
from xlvs.keepalived.files import Memory
from xlvs.keepalived.host import AnyHost
from xlvs.keepalived.parse import parse

FILE = "/k/main.conf"


def read(text: str) -> Outcome:
    return parse(FILE, Memory({FILE: text}), "one")


def config(text: str) -> Config:
    outcome = read(text)
    assert outcome.config is not None, outcome.messages
    return outcome.config


def instance(body: str, before: str = "", address: str = "10.0.0.9/24") -> Instance:
    head = "interface eth0\nvirtual_router_id 51\n"
    return config(
        f"{before}\nvrrp_instance V1 {{\n{head}virtual_ipaddress {{\n{address}\n}}\n{body}\n}}\n"
    ).instances[0]


def test_what_an_instance_is_without_a_word() -> None:
    found = instance("")
    assert (found.version, found.priority, found.state, found.advert) == (2, 100, "BACKUP", 1.0)
    assert (found.accept, found.preempt, found.down_timer_adverts) == (True, True, 3)
    assert (found.garp.master_delay, found.garp.master_repeat, found.garp.lower_prio_repeat) == (5.0, 5, 5)


def test_who_begins_as_master_without_a_priority_owns_the_address() -> None:
    assert instance("state MASTER").priority == 255
    assert instance("state MASTER\npriority 50").priority == 50
    assert instance("priority 255").state == "MASTER"


def test_ipv6_is_version_3() -> None:
    found = instance("", address="fe80::9/64")
    assert (found.family, found.version) == (10, 3)
    assert found.addresses[0].address == ip_interface("fe80::9/64")


def test_intervals_fit_the_protocol() -> None:
    assert instance("advert_int 1.5").advert == 2.0
    assert instance("version 3\nadvert_int 0.25").advert == 0.25


def test_strict_mode() -> None:
    found = instance("strict_mode\nversion 3\nauthentication {\nauth_type PASS\nauth_pass x\n}")
    assert (found.accept, found.auth, found.lower_prio_no_advert) == (False, "", True)
    assert (found.garp.lower_prio_repeat, found.garp.master_repeat) == (0, 5)


def test_global_defaults_yield_to_the_instance() -> None:
    before = (
        "global_defs {\nvrrp_garp_master_delay 7\nvrrp_garp_master_repeat 3\nvrrp_version 3\n"
        "vrrp_lower_prio_no_advert\nvrrp_mcast_group4 224.0.0.50\n}"
    )
    found = instance("garp_master_delay 2\nlower_prio_no_advert off", before)
    assert (found.garp.master_delay, found.garp.lower_prio_delay, found.garp.master_repeat) == (2.0, 7.0, 3)
    assert (found.version, found.lower_prio_no_advert) == (3, False)
    assert found.multicast_group == ip_address("224.0.0.50")


def test_addresses_with_their_options() -> None:
    found = instance("", address="10.0.0.9/24 dev eth1 label eth1:a scope link brd + noprefixroute no_track")
    address = found.addresses[0]
    assert (address.device, address.label, address.scope) == ("eth1", "eth1:a", "link")
    assert (address.broadcast, address.no_prefix_route, address.no_track) == (
        ip_address("10.0.0.255"),
        True,
        True,
    )


def test_authentication_unicast_and_tracking() -> None:
    before = "vrrp_script s {\nscript \"/bin/x 'a b' c\"\ninterval 3\nweight -5\nfall 2\nuser nobody\n}"
    found = config(
        before
        + "\nvrrp_instance V1 {\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {\n10.0.0.9\n}\n"
        "authentication {\nauth_type PASS\nauth_pass 1234567890\n}\nunicast_src_ip 10.0.0.1\n"
        "unicast_peer {\n10.0.0.2 min_ttl 200\n10.0.0.3\n}\ntrack_script {\ns weight 7 reverse\n}\n"
        "track_interface {\neth1\neth2 weight -3\n}\n}\n"
    )
    one = found.instances[0]
    assert (one.auth, one.auth_key) == ("PASS", b"12345678")
    assert one.peers == (ip_address("10.0.0.2"), ip_address("10.0.0.3"))
    assert (one.peer_ttl, one.source, one.unicast) == (((200, 255), (0, 255)), ip_address("10.0.0.1"), True)
    assert one.track_scripts == (Tracked("s", 7, True),)
    assert one.track_interfaces == (Tracked("eth1"), Tracked("eth2", -3))
    script = found.scripts[0]
    assert script.script == Script(("/bin/x", "a b", "c"), "nobody")
    assert (script.interval, script.weight, script.fall, script.rise) == (3, -5, 2, 1)


def test_routes_and_rules_keep_ips_words() -> None:
    found = instance(
        "virtual_routes {\n192.168.1.0/24 gw 10.0.0.1 dev eth0 metric 5\n}\n"
        "virtual_rules {\nfrom 10.0.0.0/8 table 100 preference 7\nto 10.1.0.0/16 table 9\n}"
    )
    assert found.routes == (Route(("192.168.1.0/24", "via", "10.0.0.1", "dev", "eth0", "metric", "5")),)
    assert found.rules == (
        Rule(("from", "10.0.0.0/8", "table", "100", "preference", "7")),
        Rule(("to", "10.1.0.0/16", "table", "9", "preference", "16384")),
    )


def test_groups_take_what_there_is() -> None:
    text = "vrrp_sync_group G {\ngroup {\nV1\nV2\nV9\n}\nnotify_master /bin/a user\n}\n" + "".join(
        f"vrrp_instance V{n} {{\ninterface eth0\nvirtual_router_id {n}\n"
        f"virtual_ipaddress {{\n10.0.0.{n}\n}}\n}}\n"
        for n in (1, 2)
    )
    outcome = read(text)
    assert outcome.config is not None
    assert outcome.config.groups[0].members == ("V1", "V2")
    assert outcome.config.groups[0].notify.master == Script(("/bin/a",), "user")
    assert outcome.messages[0].text.startswith("Virtual router V9 specified")


class Nobody(AnyHost):
    """A machine without keepalived_script."""

    def user(self, name: str) -> bool:
        return name == "root"


def test_security_needs_somebody_to_run_scripts_as() -> None:
    text = (
        "global_defs {\nenable_script_security\n%s\n}\nvrrp_script s {\nscript /bin/true\n}\n"
        "vrrp_instance V1 {\ninterface eth0\nvirtual_router_id 5\nvirtual_ipaddress {\n10.0.0.9\n}\n"
        "track_script {\ns\n}\nnotify_master /bin/true\nnotify_backup /bin/true root\n}\n"
    )
    secure = parse(FILE, Memory({FILE: text % ""}), host=Nobody())
    assert secure.config is not None
    assert (secure.status, secure.config.scripts, secure.config.instances[0].track_scripts) == (5, (), ())
    assert secure.config.instances[0].notify.master is None
    assert secure.config.instances[0].notify.backup == Script(("/bin/true",), "root")
    named = parse(FILE, Memory({FILE: text % "script_user root"}), host=Nobody())
    assert named.config is not None
    assert (named.status, len(named.config.scripts)) == (0, 1)


def test_bfd_in_milliseconds() -> None:
    found = config("bfd_instance b {\nneighbor_ip 10.0.0.2\nmin_rx 12.5\nidle_tx 2000\nvrrp\n}\n").bfds[0]
    assert (found.min_rx, found.min_tx, found.idle_tx) == (0.0125, 0.010, 2.0)
    assert (found.vrrp, found.checker) == (True, False)


@pytest.mark.parametrize("only", ["", "vrrp", "checker", "vrrp\nchecker"])
def test_a_bfd_session_may_be_for_one_process_only(only: str) -> None:
    # The words and who tracks what then are keepalived 2.2.7's.
    text = (
        f"bfd_instance b {{\nneighbor_ip 10.0.0.2\n{only}\n}}\n"
        "vrrp_instance V1 {\ninterface eth0\nvirtual_router_id 5\nvirtual_ipaddress {\n10.0.0.9\n}\n"
        "track_bfd {\nb\n}\n}\n"
        "virtual_server 10.0.0.9 80 {\nprotocol TCP\nreal_server 10.0.0.3 80 {\n"
        "BFD_CHECK {\nname b\n}\n}\n}\n"
    )
    outcome = read(text)
    assert outcome.config is not None
    said = "\n".join(message.text for message in outcome.messages)
    vrrp, checker = "vrrp" in only or not only, "checker" in only or not only
    assert bool(outcome.config.instances[0].track_bfds) == vrrp
    assert bool(outcome.config.virtual_servers[0].servers[0].checks) == checker
    assert ("(V1) track bfd b not found, ignoring..." in said) != vrrp
    assert ("BFD_CHECK - BFD b not configured" in said) != checker


def test_mail_fifos_and_timeouts() -> None:
    found = config(
        "global_defs {\nnotification_email {\na@b.c\nd@e.f\n}\nsmtp_server 10.0.0.1 2525\nsmtp_alert on\n"
        'notify_fifo /run/f\nnotify_fifo_script "/bin/r x" u g\nlvs_timeouts tcp 5 udp 6\n}\n'
    ).globals
    assert (found.mail.to, found.mail.server, found.mail.port) == (("a@b.c", "d@e.f"), "10.0.0.1", 2525)
    assert found.mail.alert is True
    assert found.fifo is not None
    assert (found.fifo.path, found.fifo.script) == ("/run/f", Script(("/bin/r", "x"), "u", "g"))
    assert found.lvs_timeouts == {"tcp": 5, "udp": 6}


@pytest.mark.parametrize(
    ("line", "word"),
    [("priority", "missing a parameter"), ("priority 300", "outside range"), ("foo", "Unknown")],
)
def test_errors_give_file_line_and_word(line: str, word: str) -> None:
    message = read(f"vrrp_instance V1 {{\n{line}\n").messages[0]
    assert message.origin is not None
    assert (message.origin.file, message.origin.line) == (FILE, 2)
    assert message.word == line.split()[0]
    assert word in message.text


def test_explain_tells_the_place_of_each_value() -> None:
    head = "vrrp_instance V1 {\ninterface eth0\nvirtual_router_id 51\npriority 77\n"
    lines = list(explain(config(head + "virtual_ipaddress {\n1.2.3.4\n}\n}\n")))
    assert f"    priority 77  # {FILE}:4" in lines
    assert "    down_timer_adverts 3  # default" in lines


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("", (False, True)),
        ("old_unicast_checksum", (True, True)),
        ("old_unicast_checksum never", (False, False)),
    ],
)
def test_old_checksums(word: str, wanted: tuple[bool, bool]) -> None:
    found = instance(f"unicast_peer {{\n10.0.0.2\n}}\n{word}")
    assert (found.old_unicast_checksum, found.checksum_compatibility) == wanted


def test_a_password_is_taken_as_it_stands() -> None:
    assert instance(r"authentication {" + "\nauth_type PASS\nauth_pass a\\x41'\n}").auth_key == b"a\\x41'"


def test_the_last_source_counts() -> None:
    found = instance("mcast_src_ip 10.0.0.1\nunicast_src_ip 10.0.0.2/24")
    assert str(found.source) == "10.0.0.2"


def test_an_owner_tracks_without_weights() -> None:
    before = "vrrp_script s {\nscript /bin/true\n}\nvrrp_script w {\nscript /bin/true\nweight 5\n}\n"
    found = instance(
        "priority 255\ntrack_script {\ns\nw\n}\ntrack_interface {\neth1 weight 4\neth2\n}", before
    )
    assert found.track_scripts == (Tracked("s"),)
    assert found.track_interfaces == (Tracked("eth2"),)


def test_a_weight_keeps_the_reverse_of_what_is_tracked() -> None:
    before = "vrrp_script s {\nscript /bin/true\nweight -5 reverse\n}\n"
    assert instance("track_script {\ns weight 2\n}", before).track_scripts == (Tracked("s", 2, None),)
    found = instance("track_script {\ns weight 2 noreverse\n}", before).track_scripts
    assert found == (Tracked("s", 2, False),)


def test_what_a_group_tells_its_members_tell() -> None:
    body = "virtual_ipaddress {\n10.0.0.9\n}\n"
    found = config(
        "vrrp_sync_group G {\ngroup {\nV1\n}\nnotify_priority_changes\n}\n"
        f"vrrp_instance V1 {{\ninterface eth0\nvirtual_router_id 51\n{body}}}\n"
    )
    assert found.instances[0].notify.priority_changes


def test_a_peer_has_the_length() -> None:
    found = instance("", address="10.0.0.9/24 peer 10.0.0.10").addresses[0]
    assert (str(found.address), str(found.peer)) == ("10.0.0.9/32", "10.0.0.10/32")
