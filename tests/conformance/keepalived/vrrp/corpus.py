"""Configurations of VRRP and BFD that the real keepalived was asked about: every keyword, and samples.

A place is a configuration with a hole; a case is a place with a statement in it, ";" for the end of a
line. ``cases.txt`` has the statements, by place; keepalived's own samples are cases of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.conformance.keepalived import cases as texts
from tests.conformance.keepalived.services.corpus import SAFE, filled, listed

SAMPLE = "sample"  # the place of keepalived's own files, their names the statements
_INSTANCE = """vrrp_instance V1 {
interface eth0
virtual_router_id 51
virtual_ipaddress {
10.0.0.9/24
}
@@
}
"""
_SECOND = _INSTANCE.replace("V1", "V2").replace("51", "52").replace("@@", "")
_FIRST = _INSTANCE.replace("@@", "")
_SIX = _INSTANCE.replace("10.0.0.9/24", "fe80::9/64")
_TRACKED = """vrrp_script s {
script /bin/true
}
vrrp_script w {
script "/bin/true w"
weight 5
}
vrrp_script r {
script "/bin/true r"
weight -5 reverse
}
track_file f {
file /tmp/f
weight 3 reverse
}
track_process p {
process p
}
bfd_instance b {
neighbor_ip 10.0.0.2
weight 7 reverse
}
"""
_TRACKS = "track_interface {\neth1 weight 4\n}\ntrack_script {\ns\nw\n}\ntrack_file {\nf\n}\n"
_TRACKS += "track_process {\np\n}\ntrack_bfd {\nb\n}\n"
_GROUP = "vrrp_sync_group G {\ngroup {\nV1\nV2\n}\n@@\n}\n"


def _in(block: str, instance: str = _INSTANCE) -> str:
    return instance.replace("@@", f"{block} {{\n@@\n}}")


PLACES: dict[str, str] = {
    "instance": _INSTANCE,
    "instance of IPv6": _SIX,
    "instance of version 3": _INSTANCE.replace("@@", "version 3\n@@"),
    "strict instance": _INSTANCE.replace("@@", "strict_mode\n@@"),
    "unicast instance": _INSTANCE.replace("@@", "unicast_peer {\n10.0.0.2\n}\n@@"),
    "instance without an interface": _INSTANCE.replace("interface eth0", "@@"),
    "instance with safe scripts": SAFE + _INSTANCE,
    "instance that tracks": _TRACKED + _INSTANCE,
    "owner that tracks": _TRACKED + _INSTANCE.replace("@@", "priority 255\n@@"),
    "addresses": _in("virtual_ipaddress", _INSTANCE.replace("10.0.0.9/24", "10.0.0.8")),
    "addresses of IPv6": _in("virtual_ipaddress", _SIX),
    "excluded addresses": _in("virtual_ipaddress_excluded"),
    "peers": _in("unicast_peer"),
    "routes": _in("virtual_routes"),
    "rules": _in("virtual_rules"),
    "group": _TRACKED + _GROUP + _FIRST + _SECOND,
    "group of those that track": _TRACKED + _GROUP + _INSTANCE.replace("@@", _TRACKS) + _SECOND,
    "group, by its members": _TRACKED + _GROUP.replace("@@", "") + _INSTANCE + _SECOND,
    "script": SAFE
    + "vrrp_script s {\nscript /bin/true\n@@\n}\n"
    + _INSTANCE.replace("@@", "track_script {\ns\n}"),
    "script, used with a weight": "vrrp_script s {\nscript /bin/true\n@@\n}\n"
    + _INSTANCE.replace("@@", "track_script {\ns weight 9\n}"),
    "file": "track_file f {\nfile /tmp/f\n@@\n}\n" + _INSTANCE.replace("@@", "track_file {\nf\n}"),
    "process": "vrrp_track_process p {\nprocess p\n@@\n}\n"
    + _INSTANCE.replace("@@", "track_process {\np\n}"),
    "process without a name": "vrrp_track_process p {\n@@\n}\n"
    + _INSTANCE.replace("@@", "track_process {\np\n}"),
    "bfd": "bfd_instance b {\nneighbor_ip 10.0.0.2\n@@\n}\n" + _INSTANCE.replace("@@", "track_bfd {\nb\n}"),
    "bfd of IPv6": "bfd_instance b {\nneighbor_ip fe80::2\n@@\n}\n"
    + _INSTANCE.replace("@@", "track_bfd {\nb\n}"),
    "global_defs": "global_defs {\n@@\n}\n" + _FIRST,
    "global_defs, for IPv6": "global_defs {\n@@\n}\n" + _SIX.replace("@@", ""),
    "static addresses": "static_ipaddress {\n@@\n}\n" + _FIRST,
    "static routes": "static_routes {\n@@\n}\n" + _FIRST,
    "static rules": "static_rules {\n@@\n}\n" + _FIRST,
    "beside an instance": "@@\n" + _FIRST,
}


def cases() -> Iterator[tuple[str, str]]:
    """Names of the cases: place and statement."""
    yield from listed(Path(__file__).with_name("cases.txt"), PLACES)
    for name, _ in texts.samples():
        yield SAMPLE, name


def text(place: str, statement: str) -> str:
    """A case's configuration. Samples' links are the bench's, and are there in time."""
    if place == SAMPLE:
        return dict(texts.samples())[statement]
    return filled(PLACES[place], statement)
