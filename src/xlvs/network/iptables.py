"""MARK rules of an iptables mangle table as rules of xlvs's own classifier.

Reads what ``iptables-save`` and ``ip6tables-save`` print. PREROUTING is followed through
user chains: jumps, gotos, RETURN and ACCEPT come out right. What looks at anything but protocol,
destination and destination port cannot be taken over, and is named line by line.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from xlvs.errors import XlvsError
from xlvs.model import AF_INET, AF_INET6, MarkRule
from xlvs.network.chains import ANY_PORT, Chains, Step

_FULL_MASK = 0xFFFFFFFF
_MATCHES_WITH_PORTS = ("tcp", "udp", "sctp", "dccp", "udplite", "multiport", "comment")
# Targets that let a packet go on as it was, with the mark it has.
_HARMLESS = (
    "LOG",
    "NFLOG",
    "ULOG",
    "TRACE",
    "TTL",
    "HL",
    "TOS",
    "DSCP",
    "TCPMSS",
    "ECN",
    "CHECKSUM",
    "CLASSIFY",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that could not be taken over, and why."""

    line: int
    text: str
    reason: str


@dataclass(slots=True)
class Import:
    """What a table came to: rules in order, the number of MARK rules taken over, and the rest."""

    rules: list[MarkRule] = field(default_factory=list)
    taken: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class _Unfit(Exception):
    """A rule cannot be taken over; the text says why."""


def save_text(family: int) -> str:
    """What this machine's iptables-save (IPv6: ip6tables-save) prints of its mangle table."""
    program = "ip6tables-save" if family == AF_INET6 else "iptables-save"
    try:
        done = subprocess.run([program, "-t", "mangle"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise XlvsError(f"there is no {program} here: give a saved table with --file") from None
    if done.returncode:
        raise XlvsError(f"{program} failed: {done.stderr.strip()}")
    return done.stdout


def import_marks(text: str, family: int) -> Import:
    """The MARK rules on the way of PREROUTING in a saved table, for IPv4 or IPv6."""
    found = Import()
    chains: dict[str, list[Step]] = {}
    jumps: list[tuple[int, str, str]] = []
    table = "mangle"  # a bare list of rules is taken for it
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("*"):
            table = line[1:].strip()
        if table != "mangle":
            continue
        if line.startswith(":"):
            chains.setdefault(line[1:].split()[0], [])
            continue
        words = _words(line)
        if not words or words[0] not in ("-A", "--append"):
            continue
        try:
            step = _step(words[2:], family)
            if words[1] in ("INPUT", "FORWARD", "OUTPUT", "POSTROUTING"):
                if step and step.verb == "mark":
                    raise _Unfit(f"the chain {words[1]} is not on a packet's way to IPVS")
                continue
            if step:
                chains.setdefault(words[1], []).append(step)
                if step.chain:
                    jumps.append((number, line, step.chain))
                found.taken += step.verb == "mark"
        except _Unfit as unfit:
            found.refusals.append(Refusal(number, line.strip(), str(unfit)))
    for number, line, chain in jumps:
        if chain not in chains:
            found.refusals.append(
                Refusal(number, line.strip(), f"the target {chain} is none of a classifier")
            )
    found.refusals.sort(key=lambda each: each.line)
    found.rules = Chains(chains, family).rules()
    return found


def _words(line: str) -> list[str]:
    line = re.sub(r"^\s*\[\d+:\d+\]", "", line)  # counters, of iptables-save -c
    if line.lstrip().startswith("#"):
        return []
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _step(words: list[str], family: int) -> Step | None:
    """One rule, or None for one that has no part in marking. Raises _Unfit."""
    rule = _Rule(family)
    rule.read(words)
    target = rule.target
    if target in _HARMLESS or not target:
        return None  # whatever it matches, the packet goes on with the mark it has
    if rule.unfit:
        raise _Unfit(rule.unfit)
    if target == "MARK":
        if rule.mark is None:
            raise _Unfit("MARK without a mark that replaces the whole one (--set-mark VALUE)")
        return Step("mark", tuple(replace(box, mark=rule.mark) for box in rule.boxes()))
    if target in ("RETURN", "ACCEPT"):
        return Step(target.lower(), rule.boxes())
    return Step("goto" if rule.goes else "jump", rule.boxes(), target)


class _Rule:
    """One rule's matches and target, read word by word."""

    def __init__(self, family: int) -> None:
        self._family = family
        self._network = ipaddress.ip_network("0.0.0.0/0" if family == AF_INET else "::/0")
        self._protocol = 0
        self._ports = [ANY_PORT]
        self.target = ""
        self.goes = False
        self.mark: int | None = None
        self.unfit = ""

    def boxes(self) -> tuple[MarkRule, ...]:
        """The packets it matches, one box for each range of ports."""
        address, bits = self._network.network_address.packed, self._network.prefixlen
        return tuple(
            MarkRule(0, self._family, address, bits, self._protocol, first, last)
            for first, last in self._ports
        )

    def read(self, words: list[str]) -> None:
        """Take all words in; what does not fit is noted in ``unfit``."""
        takers: dict[str, Callable[[str], None]] = {
            "-d": self._destination,
            "--destination": self._destination,
            "--dst": self._destination,
            "-p": self._take_protocol,
            "--protocol": self._take_protocol,
            "--dport": self._take_ports,
            "--destination-port": self._take_ports,
            "--dports": self._take_ports,
            "--destination-ports": self._take_ports,
            "-m": self._match,
            "--match": self._match,
            "-j": self._jump,
            "--jump": self._jump,
            "-g": self._goto,
            "--goto": self._goto,
            "--set-mark": self._set_mark,
            "--set-xmark": self._set_mark,
            "--comment": lambda _text: None,
        }
        rest = iter(words)
        for word in rest:
            taker = takers.get(word)
            if taker is None:
                self._misfit(word if word == "!" else f"{word} {next(rest, '')}".strip())
                continue
            try:
                taker(next(rest, ""))
            except ValueError:
                self._misfit(word)

    def _misfit(self, what: str) -> None:
        if self.target and not self.unfit:
            self.unfit = f"the option {what} of {self.target} is not understood"
        elif what == "!":
            self.unfit = self.unfit or "a match is negated (!)"
        else:
            self.unfit = self.unfit or f"it looks at more than protocol, destination and port: {what}"

    def _destination(self, text: str) -> None:
        network = ipaddress.ip_network(text, strict=False)
        if (network.version == 6) != (self._family == AF_INET6):
            raise ValueError(text)
        self._network = network

    def _take_protocol(self, text: str) -> None:
        names = {"all": 0, "ipv6-icmp": 58, "icmpv6": 58}
        if text.isdecimal():
            self._protocol = int(text)
        else:
            self._protocol = names[text] if text in names else _protocol_number(text)
        if self._protocol > 255:
            raise ValueError(text)

    def _take_ports(self, text: str) -> None:
        self._ports = [_port_range(each) for each in text.split(",")]

    def _match(self, text: str) -> None:
        if text not in _MATCHES_WITH_PORTS:
            self._misfit(f"-m {text}")

    def _jump(self, text: str) -> None:
        self.target = text

    def _goto(self, text: str) -> None:
        self.target, self.goes = text, True

    def _set_mark(self, text: str) -> None:
        value, slash, mask = text.partition("/")
        if slash and int(mask, 0) != _FULL_MASK:
            self.unfit = self.unfit or f"it changes part of the mark only (mask {mask})"
            return
        self.mark = int(value, 0)


def _protocol_number(name: str) -> int:
    try:
        return socket.getprotobyname(name)
    except OSError:
        raise ValueError(name) from None


def _port_range(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    low = _port(first) if first else 0
    high = (_port(last) if last else 0xFFFF) if colon else low
    if low > high:
        raise ValueError(text)
    return low, high


def _port(text: str) -> int:
    if not text.isdecimal():
        try:
            return socket.getservbyname(text)
        except OSError:
            raise ValueError(text) from None
    if int(text) > 0xFFFF:
        raise ValueError(text)
    return int(text)


def lines(found: Import) -> Iterable[str]:
    """What could not be taken over, a line each."""
    for each in found.refusals:
        yield f"line {each.line}: {each.reason}: {each.text}"
