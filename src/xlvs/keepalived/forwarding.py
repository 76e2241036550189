"""How packets reach a real server: lb_kind, lvs_method and the tunnel behind TUN."""

from __future__ import annotations

from xlvs.keepalived.endpoints import MOST_PORTS
from xlvs.keepalived.schema import Draft, Line, Refused
from xlvs.keepalived.values import number
from xlvs.model import Forward, Tunnel, TunnelType

# FNAT is FULLNAT's own word; the rest is keepalived's.
_METHODS = {
    "NAT": Forward.MASQ,
    "DR": Forward.ROUTE,
    "TUN": Forward.TUNNEL,
    "FNAT": Forward.FULLNAT,
    "FULLNAT": Forward.FULLNAT,
}
_TYPES = {"ipip": TunnelType.IPIP, "gue": TunnelType.GUE, "gre": TunnelType.GRE}
_CHECKSUMS = {"nocsum": 0, "csum": 1, "remcsum": 2}  # IP_VS_TUNNEL_ENCAP_FLAG_* of linux/ip_vs.h


def method(line: Line, draft: Draft, server: str) -> None:
    """``lvs_method NAT|DR|FNAT|TUN [type ...]``: fields forward and tunnel; ``server`` for messages."""
    found = _METHODS.get(line.word())
    if found is None:
        raise Refused(f"PARSER : unknown [{line.word()}] routing method for {server} server.")
    draft.values["forward"], draft.values["tunnel"] = found, Tunnel()
    draft.origins["forward"] = draft.origins["tunnel"] = line.origin
    tunnel = _tunnel(line, server)  # judged whatever the method is, as keepalived does
    if found == Forward.TUNNEL:
        draft.values["tunnel"] = tunnel


def _tunnel(line: Line, server: str) -> Tunnel:
    """``[type {ipip|gue port N|gre}] [nocsum|csum|remcsum]``, in any order."""
    kind, port, checksum = TunnelType.IPIP, 0, None
    words = iter(line.words[2:])
    for word in words:
        if word == "type":
            named = next(words, None)
            if named is None:
                raise Refused(f"Missing tunnel type for {server} server.")
            if named not in _TYPES:
                raise Refused(f"Unknown tunnel type {named} for {server} server.")
            kind = _TYPES[named]
        elif word == "port":
            text = next(words, None)
            if text is None:
                raise Refused(f"Missing port for {server} server gue tunnel.")
            given = number(line, text, 1, MOST_PORTS)
            if given is None:
                raise Refused(f"Invalid gue tunnel port {text} for {server} server.")
            port = given
        elif word in _CHECKSUMS:
            checksum = word
        else:
            raise Refused(f"Invalid tunnel option {word} for {server} server.")
    if (kind == TunnelType.GUE) != bool(port):
        raise Refused("gue tunnels require port, otherwise cannot have port.")
    if kind == TunnelType.IPIP and checksum not in (None, "nocsum"):
        raise Refused("ipip tunnels do not support checksum option.")
    if kind == TunnelType.GRE and checksum == "remcsum":
        raise Refused("gre tunnels do not support remote checksum option.")
    return Tunnel(kind, port, _CHECKSUMS[checksum] if checksum else 0)
