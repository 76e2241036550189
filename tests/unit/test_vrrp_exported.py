"""keepalived.json, beside what the real keepalived 2.2.7 wrote of the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlvs.daemon.vrrp.exported import exported
from xlvs.daemon.vrrp.places import sites_of
from xlvs.daemon.vrrp.translate import settings_of
from xlvs.keepalived.parse import parse
from xlvs.vrrp.machine import Machine
from xlvs.vrrp.packet import Fault

FILE = """
vrrp_instance A {
interface e0
virtual_router_id 51
priority 100
advert_int 1
garp_master_delay 0
garp_master_repeat 1
garp_lower_prio_delay 0
garp_lower_prio_repeat 1
virtual_ipaddress {
10.9.0.50/24
}
}
"""
# Recorded, but for last_transition; master_priority is the last other master's there.
DATA = json.loads(
    '{"iname": "A", "dont_track_primary": 0, "skip_check_adv_addr": 0, "strict_mode": 0, "vmac_ifname": "",'
    '"ifp_ifname": "e0", "garp_delay": 0, "garp_refresh": 0, "garp_rep": 1, "garp_refresh_rep": 1,'
    '"garp_lower_prio_delay": 0, "garp_lower_prio_rep": 1, "lower_prio_no_advert": 0,'
    '"higher_prio_send_advert": 0, "vrid": 51, "base_priority": 100, "effective_priority": 100,'
    '"vipset": true, "promote_secondaries": false, "adver_int": 1, "master_adver_int": 1, "accept": 1,'
    '"nopreempt": false, "preempt_delay": 0, "state": 2, "wantstate": 2, "version": 2, "smtp_alert": false,'
    '"notify_deleted": false, "vips": ["10.9.0.50/24 dev e0 scope global set"], "auth_type": 0}'
)
STATS = [
    *("advert_rcvd", "advert_sent", "become_master", "release_master", "packet_len_err"),
    *("advert_interval_err", "ip_ttl_err", "invalid_type_rcvd", "addr_list_err", "invalid_authtype"),
    *("authtype_mismatch", "auth_failure", "pri_zero_rcvd", "pri_zero_sent"),
]


def test_the_same_names_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    (tmp_path / "conf").write_text(FILE)
    config = parse(str(tmp_path / "conf")).config
    assert config is not None
    machine = Machine(settings_of(config.instances[0], config))
    machine.start(1.0)
    machine.tick(machine.deadline or 0.0)
    machine.counters.refused[Fault.TTL] = 3
    made = exported(config.instances[0], machine, sites_of(config)["A"], machine.since + 5.0)
    data, stats = made["data"], made["stats"]
    assert isinstance(data, dict)
    assert isinstance(stats, dict)
    assert data.pop("last_transition") == 995.0
    assert data.pop("master_priority") == 100
    assert data == DATA
    assert list(stats) == STATS
    assert (stats["become_master"], stats["advert_sent"], stats["ip_ttl_err"]) == (1, 1, 3)
