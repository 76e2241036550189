"""Configurations on which the real keepalived was asked, and on which ours must agree.

Three kinds: each keyword with each of VALUES; TEXTS, written for what goes wrong between lines;
keepalived's own samples (read from Debian's package, so only where that is installed), mutated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from xlvs.keepalived import bfd, global_defs, statics, tracking, vrrp_instance
from xlvs.keepalived.schema import Table

SAMPLES = Path("/usr/share/doc/keepalived/samples")
VALUES: tuple[str, ...] = (
    "",
    "0",
    "1",
    "-1",
    "255",
    "256",
    "x",
    "1.5",
    "99999999999",
    "yes",
    "maybe",
    "10.0.0.9",
    "fe80::9",
)
VALUES += ("224.0.0.50", "eth0", "eth9", "MASTER", "/bin/true", "/none a", "a b c")

INSTANCE = """vrrp_instance V1 {
 interface eth0
 virtual_router_id 51
 virtual_ipaddress { 10.0.0.9/24 }
%s
}
"""
_SECOND = INSTANCE.replace("V1", "V2").replace("51", "52")
_BLOCKS: dict[str, tuple[str, Table]] = {
    "vrrp_instance": (INSTANCE, vrrp_instance.KEYWORDS),
    "vrrp_script": (
        "vrrp_script s { script /bin/true\n%s\n}\n" + INSTANCE % "track_script { s }",
        tracking.SCRIPT,
    ),
    "track_file": ("track_file s { file /tmp/x\n%s\n}\n" + INSTANCE % "track_file { s }", tracking.FILE),
    "vrrp_track_process": (
        "vrrp_track_process s { process foo\n%s\n}\n" + INSTANCE % "track_process { s }",
        tracking.PROCESS,
    ),
    "bfd_instance": ("bfd_instance b { neighbor_ip 10.0.0.2\n%s\n}\n" + INSTANCE % "", bfd.KEYWORDS),
    "global_defs": ("global_defs {\n%s\n}\n" + INSTANCE % "", global_defs.KEYWORDS),
    "": ("%s\n" + INSTANCE % "", global_defs.TOP),
    "vrrp_sync_group": (
        "vrrp_sync_group G { group { V1\n V2 }\n%s\n}\n" + INSTANCE % "" + _SECOND % "",
        statics.SYNC,
    ),
    "garp_group": ("garp_group { garp_interval 0.1\n%s\n}\n" + INSTANCE % "", statics.GARP),
}
# Keywords of which -t of the real one depends on more than the text: processors, name service,
# directories (which it makes), the links there are; and those with which Debian's crashes.
UNFIT: tuple[str, ...] = (
    "cpu_affinity",
    "smtp_server",
    "config_save_dir",
    "use_vmac",
    "use_ipvlan",
    "neighb",
    "net_namespace",
)
UNFIT += ("tmp_config_directory", "instance", "script_user")

TEXTS: dict[str, str] = {
    "empty": "",
    "comments": "! a\n# b\n  ! c { \n",
    "words": 'aaa "b c" d\n"q1 q2"z foo\nq1" q2" foo\n\'single q\' x\n',
    "open quote": 'a\n"unterminated x\nb\n',
    "unknown block": "w11 {\n inner\n}\nw12 { inner2\n inner3 }\n",
    "unknown block in block": "vrrp_instance A {\n foo {\n state MUSTER\n }\n state MISTER\n}\n",
    "no value": "vrrp_instance A { state }\n",
    "missing brace": "vrrp_instance A\ninterface eth0\nvirtual_router_id 5\n",
    "list without brace": INSTANCE % "virtual_ipaddress\n10.0.0.8\n}\n",
    "extra brace": INSTANCE % "}" + "}",
    "never closed": "global_defs {\n router_id A\n",
    "list with words": "global_defs { notification_email a@b.c {\ne@f.g } }\n",
    "conditions": "@one foo\n@^one bar\n@two @one baz\n@^two router_id\n@\n@one\n",
    "parameters": "$A=w9 w10\n$A\n$A x\n${A}x y\nx$A\n$UNDEF\n${UNDEF}f\n$ A=b\n$1a=5\n",
    "late replacement": "$A=10.${B}\n$B=0\n${A}.1\n$B=1\n${A}.1\n",
    "many lines": "$A= \\\n k1 \\\n k2 ${X} \\\n k3\n$X=4\n$A\n$A z\n",
    "many lines in many lines": "$R= \\\n r${N} \\\n\n s\n$V= \\\n $N=1 \\\n $R \\\n $N=2 \\\n $R\n$V\n",
    "a blank line ends it": "$A= \\\n k1 \\\n\n k2\nk3\n$A\n",
    "options without value": INSTANCE % "virtual_ipaddress { 10.0.0.9/24 scope\n10.0.0.8 dev\n}",
    "end behind a keyword": "global_defs",
    "owner without preemption": INSTANCE % "state MASTER\npriority 255\nnopreempt",
    "master and priority": INSTANCE % "state MASTER\npriority 100\nnopreempt",
    "strict": INSTANCE
    % "strict_mode\nversion 3\npriority 100\nauthentication { auth_type PASS\nauth_pass x }",
    "refused and insecure": INSTANCE % "foo\nnotify_master /bin/true",
    "no name and insecure": "vrrp_instance { notify_master /bin/true }",
    "sequences": "~SEQ(A, 1, 3) s${A}\n~SEQ(B, 3, 1) s$B\n~SEQx(C, 0x8, 0x2, 0x0c) t${C}\n~SEQ(D, 5) u${D}\n",
    "bad sequences": "~SEQ(N,1,0,5) u${N}\n~SEQ(N,a,5) u${N}\n~SEQ(N,5,1,3) w${N}\n",
    "lists": "~LST(D, a, b, c) v${D}\n~LST({E,F}, {a,b},{c,d}) v${E}-${F}\n"
    "~SEQ(G,1,2) ~LST(H,x,y) v${G}${H}\n",
    "bad list": "~LST(J)  foo\n",
    "sequence of instances": "$V= \\\n vrrp_instance V${N} { \\\n interface eth0 \\\n"
    " virtual_router_id ${N} \\\n virtual_ipaddress { \\\n 10.0.0.${N} \\\n } \\\n }\n~SEQ(N, 1, 20) $V\n",
    "same name": INSTANCE % "" + INSTANCE % "",
    "no router id": "vrrp_instance V1 {\n interface eth0\n virtual_ipaddress { 10.0.0.9/24 }\n}\n",
    "no address": "vrrp_instance V1 {\n interface eth0\n virtual_router_id 51\n}\n",
    "no interface": "vrrp_instance V1 {\n virtual_router_id 51\n virtual_ipaddress { 10.0.0.9/24 }\n}\n",
    "no name": "vrrp_instance { interface eth0 }\n",
    "both families": INSTANCE % "virtual_ipaddress { fe80::1/64 }",
    "group of nobody": "vrrp_sync_group G { group { V1\n V2 } }\n" + INSTANCE % "",
    "empty group": "vrrp_sync_group G { V1 }\n" + INSTANCE % "",
    "tracked nothing": INSTANCE
    % "track_script { x }\ntrack_file { y }\ntrack_bfd { z }\ntrack_process { u }",
    "tracked links": INSTANCE
    % "track_interface { eth1 weight 300\n eth1 weight\n eth9 foo\n eth1 weight 5 up\n }",
    "links that come": "global_defs { dynamic_interfaces }\n" + (INSTANCE % "").replace("eth0", "eth7"),
    "addresses": "static_ipaddress {\n1.2.3.4/24 dev eth9\n1.2.3.5/33 dev eth0\n1.2.3.5.6 dev eth0\n"
    "1.2.3.6 dev eth0 label eth0:a scope link brd 1.2.3.255\n1.2.3.7 dev eth0 foo scope bad brd x\n"
    "fe80::5/64 dev eth0 brd 1.2.3.4\n1.2.3.8 dev eth0 peer 1.2.3.9\n1.2.3.8 dev eth0 peer fe80::1\n}\n",
    "routes": "static_routes {\n10.1.0.0/16 via 10.0.0.254 dev eth0\n10.1.0.0/16 foo\n10.1.0.0/16 via x\n"
    "10.1.0.0/16 table nosuch\n10.1.0.0/16 table 100 dev eth0\n10.1.0.0/16 scope bad dev eth0\n10.1.0.0/16\n"
    "0.0.0.0/0 gw 10.0.0.1\nblackhole 10.2.0.0/16\n10.4.0.0/24 mtu lock 1400 dev eth0\n"
    "10.4.0.0/24 mtu x dev eth0\n10.4.0.0/24 via fe80::1 dev eth0\n10.4.0.0/24 dev eth0 tos 300\n"
    "10.4.0.0/24 nexthop via 10.0.0.3 weight 300 nexthop via 10.0.0.4 dev eth0 weight 2\nvia 10.0.0.4\n}\n",
    "rules": "static_rules {\nfrom 10.0.0.0/8 table 100\nfrom 10.0.0.0/8\nfrom x table 100\ntable 100\n"
    "to 10.0.0.0/8 lookup main priority 5\nfrom 10.0.0.0/8 to fe80::/64 table 100\niif eth0 goto 10\n"
    "iif eth0 goto 10 preference 5\niif eth0 goto 10 preference 50\nfwmark x table 5\nfrom 10.0.0.0/8 foo\n"
    "from 10.0.0.0/8 blackhole\nnot from 10.0.0.0/8 table 4\nuidrange 3-5 table 3\n}\n",
    "version 3 password": INSTANCE % "version 3\nauthentication { auth_type PASS\n auth_pass 12345678901\n}",
    "no password": INSTANCE % "authentication { auth_type AH }",
    "unknown authentication": INSTANCE % "authentication { auth_type MD5\n auth_pass x }",
    "master without preemption": INSTANCE % "state MASTER\nnopreempt\npreempt_delay 5",
    "no preemption, delayed": INSTANCE % "nopreempt\npreempt_delay 5",
    "half seconds": INSTANCE % "advert_int 1.5",
    "half hundredths": INSTANCE % "version 3\nadvert_int 1.005",
    "one number twice": INSTANCE % "" + (INSTANCE % "").replace("V1", "V2"),
    "script twice": INSTANCE % "notify_master /bin/true\nnotify_master /bin/false",
    "unused script": "vrrp_script x { script /bin/true }\n" + INSTANCE % "",
    "no script": "vrrp_script x { script /none }\n" + INSTANCE % "track_script { x }",
    "unicast": INSTANCE
    % "unicast_src_ip 10.0.0.1\nunicast_peer { 10.0.0.2 min_ttl 3 max_ttl 2\n10.0.0.x\nfe80::1 }",
    "timeouts": "global_defs { lvs_timeouts tcp 5 tcpfin x udp 3 foo 4 }\n",
    "link delays": "interface_up_down_delays {\neth0\neth1 1 2 3\neth0 1\n}\n",
    "linkbeat": "linkbeat_interfaces {\n eth0\n eth9\n eth1 FOO\n}\n",
}


def keywords() -> Iterator[tuple[str, str]]:
    """Each keyword of each block with each value, by name."""
    for block, (template, table) in _BLOCKS.items():
        for keyword, row in table.items():
            if row.block is None and not any(unfit in keyword for unfit in UNFIT):
                for value in VALUES:
                    yield f"{block} {keyword} {value}", template % f"{keyword} {value}"


def samples() -> Iterator[tuple[str, str]]:
    """keepalived's sample files, as far as they name interfaces that the bench has."""
    for path in sorted(SAMPLES.glob("keepalived.conf.*")):
        yield path.name, path.read_text(errors="surrogateescape")


def mutated(text: str, dice: random.Random) -> str:
    """The text with one to three lines or words taken out, doubled, swapped or replaced."""
    lines = text.splitlines()
    for _ in range(dice.randint(1, 3)):
        if not lines:
            break
        at = dice.randrange(len(lines))
        words = lines[at].split()
        match dice.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2 if words:
                words[dice.randrange(len(words))] = dice.choice(VALUES)
                lines[at] = " ".join(words)
            case 3 if words:
                del words[dice.randrange(len(words))]
                lines[at] = " ".join(words)
            case 4:
                lines.insert(
                    at, dice.choice(["{", "}", "foo {", "foo", '"', "@two", "$A=b", "include /none"])
                )
            case _:
                other = dice.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines) + "\n"
