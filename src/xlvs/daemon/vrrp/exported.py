"""keepalived.json: instances as keepalived 2.2.7 exports them, for the programs that read its file."""

from __future__ import annotations

import time
from collections.abc import Mapping

from xlvs.daemon.vrrp.places import Place, Site
from xlvs.keepalived.config import Instance
from xlvs.vrrp.commands import State
from xlvs.vrrp.machine import Counters, Machine
from xlvs.vrrp.packet import AUTH_TYPES, Fault

# keepalived's numbers of states; what has not begun and what has ended are its INIT.
_STATES = {State.BACKUP: 1, State.MASTER: 2, State.FAULT: 3}
_FAULTS = {
    "packet_len_err": Fault.LENGTH,
    "advert_interval_err": Fault.INTERVAL,
    "ip_ttl_err": Fault.TTL,
    "invalid_type_rcvd": Fault.TYPE,
    "addr_list_err": Fault.ADDRESSES,
    "invalid_authtype": Fault.AUTH_TYPE,
    "authtype_mismatch": Fault.AUTH_MISMATCH,
    "auth_failure": Fault.AUTH_FAILURE,
}


def exported(instance: Instance, machine: Machine, site: Site, now: float) -> Mapping[str, object]:
    """One element of the file's list; ``now`` is the machine's clock, ``last_transition`` the wall's."""
    garp, master = instance.garp, machine.state is State.MASTER
    wanted = machine.state if machine.state in (State.BACKUP, State.MASTER) else State.BACKUP
    own = len(instance.addresses)
    data: dict[str, object] = {
        "iname": instance.name,
        "dont_track_primary": int(instance.dont_track_primary),
        "skip_check_adv_addr": int(instance.skip_check_adv_addr),
        "strict_mode": int(instance.strict),
        "vmac_ifname": site.device if instance.vmac or instance.ipvlan else "",
        "ifp_ifname": site.device,
        "master_priority": machine.master_priority,
        "last_transition": time.time() - max(0.0, now - machine.since),
        "garp_delay": garp.master_delay,
        "garp_refresh": garp.master_refresh,
        "garp_rep": garp.master_repeat,
        "garp_refresh_rep": garp.master_refresh_repeat,
        "garp_lower_prio_delay": garp.lower_prio_delay,
        "garp_lower_prio_rep": garp.lower_prio_repeat,
        "lower_prio_no_advert": int(instance.lower_prio_no_advert),
        "higher_prio_send_advert": int(instance.higher_prio_send_advert),
        "vrid": instance.router_id,
        "base_priority": instance.priority,
        "effective_priority": machine.priority,
        "vipset": master,
        "promote_secondaries": instance.promote_secondaries,
        "adver_int": instance.advert,
        "master_adver_int": machine.master_interval,
        "accept": int(instance.accept),
        "nopreempt": not instance.preempt,
        "preempt_delay": instance.preempt_delay,
        "state": _STATES.get(machine.state, 0),
        "wantstate": _STATES[wanted],
        "version": instance.version,
        "smtp_alert": bool(instance.notify.smtp_alert),
        "notify_deleted": instance.notify.deleted_state,
        "vips": [_address(place, master) for place in site.addresses[:own]],
    }
    if instance.excluded:
        data["evips"] = [_address(place, master) for place in site.addresses[own:]]
    data["auth_type"] = AUTH_TYPES[instance.auth]  # keepalived writes the password behind it: we do not
    return {"data": data, "stats": _stats(machine.counters)}


def _address(place: Place, in_place: bool) -> str:
    one = place.address
    link_local = one.address.version == 6 and one.address.is_link_local
    scope = one.scope or ("link" if link_local else "global")
    return f"{one.address} dev {place.device} scope {scope}{' set' if in_place else ''}"


def _stats(counters: Counters) -> dict[str, int]:
    return {
        "advert_rcvd": counters.received,
        "advert_sent": counters.sent,
        "become_master": counters.became_master,
        "release_master": counters.released_master,
        **{name: counters.refused[fault] for name, fault in _FAULTS.items()},
        "pri_zero_rcvd": counters.zero_received,
        "pri_zero_sent": counters.zero_sent,
    }
