"""What commands are made of: options and their spellings, values good and bad.

The table of options is written from ipvsadm's manual page, not taken from xlvs: what
xlvs forgets would not be asked for.
"""

from __future__ import annotations

from typing import NamedTuple

# Names that hosts have, on both sides.
HOSTS = """\
127.0.0.1 localhost
10.0.0.1 www.example.test www
10.0.0.2 mail.example.test
192.168.0.10 rs1.example.test rs1
192.168.0.11 rs2
2001:db8::1 www6.example.test
2001:db8::10 a-real-server-with-a-rather-long-name-in-its.domain.example.test
"""
# Interfaces of the director, on both sides: name -> (MTU, up or down, addresses). The address with its
# prefix length; the last address of an IPv4 network is no destination.
INTERFACES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "fuzz0": (1500, "up", ("192.0.2.1/24", "fd00:2::1/64")),
    "fuzz1": (9000, "up", ("198.51.100.1/24",)),
    "fuzz2": (1000, "up", ()),  # too small for IPv6
    "fuzz3": (1500, "down", ()),
}

# option: (long, short, takes a value: 0 no, 1 yes, 2 perhaps)
SPELLINGS: dict[str, tuple[str, str, int]] = {
    long: (long, short, value)
    for long, short, value in (
        ("add-service", "A", 0),
        ("edit-service", "E", 0),
        ("delete-service", "D", 0),
        ("clear", "C", 0),
        ("restore", "R", 0),
        ("save", "S", 0),
        ("add-server", "a", 0),
        ("edit-server", "e", 0),
        ("delete-server", "d", 0),
        ("list", "L", 0),
        ("zero", "Z", 0),
        ("set", "", 0),
        ("start-daemon", "", 1),
        ("stop-daemon", "", 1),
        ("help", "h", 0),
        ("version", "v", 0),
        ("tcp-service", "t", 1),
        ("udp-service", "u", 1),
        ("sctp-service", "", 1),
        ("fwmark-service", "f", 1),
        ("ipv6", "6", 0),
        ("scheduler", "s", 1),
        ("pe", "", 1),
        ("persistent", "p", 2),
        ("netmask", "M", 1),
        ("real-server", "r", 1),
        ("gatewaying", "g", 0),
        ("ipip", "i", 0),
        ("masquerading", "m", 0),
        ("tun-type", "", 1),
        ("tun-port", "", 1),
        ("tun-nocsum", "", 0),
        ("tun-csum", "", 0),
        ("tun-remcsum", "", 0),
        ("weight", "w", 1),
        ("u-threshold", "x", 1),
        ("l-threshold", "y", 1),
        ("connection", "c", 0),
        ("timeout", "", 0),
        ("daemon", "", 0),
        ("stats", "", 0),
        ("rate", "", 0),
        ("exact", "X", 0),
        ("thresholds", "", 0),
        ("persistent-conn", "", 0),
        ("tun-info", "", 0),
        ("nosort", "", 0),
        ("sort", "", 0),
        ("ops", "o", 0),
        ("numeric", "n", 0),
        ("sched-flags", "b", 1),
        ("syncid", "", 1),
        ("sync-maxlen", "", 1),
        ("mcast-interface", "", 1),
        ("mcast-group", "", 1),
        ("mcast-port", "", 1),
        ("mcast-ttl", "", 1),
    )
}
COMMANDS = tuple(SPELLINGS)[:16]
OPTIONS = tuple(SPELLINGS)[16:]


class Item(NamedTuple):
    """One option of a command line before it is spelt."""

    option: str
    value: str | None = None


Line = list[Item]

# Virtual addresses. ipvsadm sorts services by the sign of a 32-bit difference: where they
# stand all around the circle of numbers, its order depends on the kernel's hash, which is
# another one at each boot. So a sequence takes its addresses from one half of the circle.
VIPS4 = (
    ("10.0.0.1", "10.0.0.2", "10.9.8.7", "192.168.77.1", "www", "203.0.113.1", "1.2.3.4"),
    ("10.0.0.1", "10.0.0.2", "mail.example.test", "localhost", "100.64.0.1", "10.1"),
)
ODD_VIPS4 = (("0.0.0.0", "224.0.0.1", "255.255.255.255", "0x0a000003"), ("0.0.0.0", "012.0.0.3"))
VIPS6 = ("2001:db8::1", "2001:db8::2", "fd00::1", "2001:DB8:0:0::3")
ODD_VIPS6 = ("::", "::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1")
PORTS = ("80", "443", "53", "5060", "8080")
NAMED_PORTS = {
    "tcp-service": ("http", "https", "ssh", "domain"),
    "udp-service": ("domain", "sip", "ntp"),
    "fwmark-service": ("http", "smtp"),  # looked up as TCP's
}
ODD_PORTS = ("0", "65535", "domain", "080", "+80", "1")
BAD_PORTS = ("65536", "-1", "0x50", "nosuchservice", "", " ", "80 ", "99999999999999999999", "http ", "8o")
MARKS = ("1", "2", "3", "100")
ODD_MARKS = ("2147483640", "4294967295", "+7", " 9", "010")
BAD_MARKS = ("0", "-1", "4294967296", "x", "", "1x", "0x10", "99999999999999999999")

SERVERS4 = ("192.168.0.10", "192.168.0.11", "rs1", "172.16.0.1", "192.168.0.12", "100.0.0.1")
ODD_SERVERS4 = (
    *("127.0.0.1", "10.0.0.1", "192.0.2.1", "192.0.2.77", "240.0.0.1", "0.1.2.3", "192.168.12", "1.1.1.1"),
    *("220.0.0.1", "129.0.0.1", "rs2", "198.51.100.1"),
)
BAD_SERVERS4 = (
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.255", "192.0.2.255", "256.1.1.1", "1.2.3.4.5"),
    *("no.such.host", "", "10", "192.168.0.10/32", "-1.2.3.4", "192.0.2.0"),
)
SERVERS6 = ("2001:db8::10", "2001:db8::11", "fd00::10")
ODD_SERVERS6 = ("9001:db8::7", "::1", "fd00:2::1", "2001:db8::1", "fec0::1", "::1.2.3.4", "7fff::1")
BAD_SERVERS6 = (
    "::",
    "ff02::1",
    "fe80::1",
    "::ffff:1.2.3.4",
    "2001:db8::g",
    "1:2:3:4:5:6:7:8:9",
    "fe80::1%lo",
)

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh")
ODD_SCHEDULERS = ("none", "RR", "nosuch", "", "wlc ", "averyveryverylongname", "rr,wrr", "mhh", "../rr")
FLAGS = {
    "sh": ("sh-fallback", "sh-port", "sh-fallback,sh-port", "flag-1", "flag-2", "flag-1,flag-2,flag-3"),
    "mh": ("mh-fallback", "mh-port", "mh-port,mh-fallback", "flag-1", "flag-3"),
    "": ("flag-1", "flag-2", "flag-3", "flag-1,flag-3"),
}
BAD_FLAGS = ("sh-port", "mh-port", "nonsense", "", "sh-port,", "flag-4", "flag-1,,flag-2", "flag-1,x")
TIMEOUTS = ("60", "300", "1", "360", "2678400")
BAD_TIMEOUTS = ("0", "2678401", "x", "", "60x", "+60", " 60", "0x3c", "99999999999999999999")
MASKS4 = ("255.255.255.0", "255.255.0.0", "255.255.255.255", "255.255.255.240")
ODD_MASKS4 = ("0.0.0.0", "24", "255.0.255.0", "255.255.255", "localhost", "0xffffff00")
MASKS6 = ("64", "128", "48", "1")
BAD_MASKS = ("0", "129", "-1", "64x", "nonsense", "", "256.0.0.0", "/24", "ffff::")
WEIGHTS = ("0", "1", "2", "5", "100", "65535")
ODD_NUMBERS = ("2147483647", "+3", " 4", "007", "-0", "65536", "1000000")
BAD_NUMBERS = ("-1", "2147483648", "x", "", "1x", "0x10", "3 ", "1.5", "99999999999999999999", "-2147483649")
TUNNELS = ("ipip", "gue", "gre")
BAD_TUNNELS = ("vxlan", "", "IPIP", "gu", "gre ")
TUNNEL_PORTS = ("6080", "1", "65535")
GROUPS = ("224.0.0.99", "239.1.2.3", "ff02::99", "ff05::1:2")
BAD_GROUPS = (
    "10.0.0.1",
    "2001:db8::1",
    "x",
    "",
    "224.0.0",
    "ff02::g",
    "240.0.0.1",
    "223.255.255.255",
    "ff02:",
)
SYNC_LENGTHS = ("1", "500", "1472", "65507", "65490")
DEVICES = ("fuzz0", "fuzz1", "lo", "fuzz2", "fuzz3")
BAD_DEVICES = ("nosuch0", "", "averyveryverylonginterface", "fuzz", "fuzz0 ")

# Everything that may follow an option as its value, for mutations that do not care what is meant.
VALUES: dict[str, tuple[str, ...]] = {
    "tcp-service": ("10.0.0.1:80", "10.0.0.1", "[2001:db8::1]:80", "2001:db8::1", "10.0.0.1:0", "www:http"),
    "udp-service": ("10.0.0.1:53", "10.0.0.2:domain", "[2001:db8::1]:53", "10.0.0.1:99999", "80", "nonsense"),
    "sctp-service": (
        "10.0.0.1:80",
        "10.0.0.2:0",
        "[fd00::1]:80",
        "[fd00::1]",
        "[fd00::1",
        "[10.0.0.1]:80",
        ":80",
    ),
    "fwmark-service": MARKS + ODD_MARKS + BAD_MARKS,
    "scheduler": SCHEDULERS + ODD_SCHEDULERS,
    "pe": ("sip", "nosuch", "", "SIP", "averyveryverylongengine"),
    "persistent": TIMEOUTS + BAD_TIMEOUTS,
    "netmask": MASKS4 + ODD_MASKS4 + MASKS6 + BAD_MASKS,
    "real-server": ("192.168.0.10", "192.168.0.10:80", "[2001:db8::10]:80", "nonsense", "rs1:http"),
    "tun-type": TUNNELS + BAD_TUNNELS,
    "tun-port": TUNNEL_PORTS + BAD_NUMBERS + ("0", "65536"),
    "weight": WEIGHTS + ODD_NUMBERS + BAD_NUMBERS,
    "u-threshold": WEIGHTS + ODD_NUMBERS + BAD_NUMBERS,
    "l-threshold": WEIGHTS + ODD_NUMBERS + BAD_NUMBERS,
    "sched-flags": tuple(flag for flags in FLAGS.values() for flag in flags) + BAD_FLAGS,
    "syncid": ("0", "1", "255", "256", *BAD_NUMBERS),
    "sync-maxlen": (*SYNC_LENGTHS, "65508", "0", "70", *BAD_NUMBERS),
    "mcast-interface": DEVICES + BAD_DEVICES,
    "mcast-group": GROUPS + BAD_GROUPS,
    "mcast-port": ("8848", "1", "65535", "0", "65536", *BAD_NUMBERS),
    "mcast-ttl": ("1", "64", "255", "0", "256", *BAD_NUMBERS),
    "start-daemon": ("master", "backup", "both", "", "Master", "masterx"),
    "stop-daemon": ("master", "backup", "both", "", "m"),
}
