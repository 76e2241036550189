"""The guided demo: for each method a lab, commands really typed, and whether all was as it must be."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xlvs.errors import XlvsError
from xlvs.lab import build, load, namespaces, webserver
from xlvs.lab.topology import Method, Topology, drawing, host_port

REQUESTS = 6
EXPLAINED = {
    Method.NAT: "requests get a real server's address, replies the VIP again: all passes the director",
    Method.DR: "the director changes MAC addresses only; real servers answer the client directly",
    Method.TUN: "the director wraps packets and sends them anywhere; real servers answer the client directly",
    Method.FULLNAT: "real servers are anywhere behind routers: they see, and answer, local addresses",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    held: bool
    text: str


@dataclass
class Screen:
    """Where the demo writes; ``colours`` only where somebody looks at a terminal."""

    write: Callable[[str], None]
    colours: bool = False

    def _styled(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours else text

    def heading(self, text: str) -> None:
        self.write(f"\n{self._styled('1', text)}\n")

    def typed(self, node: str, command: str) -> None:
        self.write(f"  {self._styled('36', node + '#')} {self._styled('1', command)}")

    def lines(self, text: str, indent: str = "    ") -> None:
        for line in text.splitlines():
            self.write(f"{indent}{line}")

    def finding(self, finding: Finding) -> None:
        mark = self._styled("32", "ok ") if finding.held else self._styled("31", "NOT")
        self.write(f"  {mark} {finding.subject:<7} {finding.text}")


@dataclass
class Demo:
    """One run over some methods; :attr:`findings` grow as it goes."""

    screen: Screen
    name: str
    real_servers: int = 2
    findings: list[Finding] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether everything so far was as it must be."""
        return all(finding.held for finding in self.findings)

    def run(self, methods: Sequence[Method]) -> None:
        """Show each method, then sum up. Whatever happens, the labs are taken down."""
        with build.sigterm_interrupts():
            for number, method in enumerate(methods, 1):
                self.screen.heading(f"[{number}/{len(methods)}] {method.value.upper()}: {EXPLAINED[method]}")
                self._show(build.Lab(self.name, method, self.real_servers, ipv6=False, toa=False))
        self.screen.heading("What was seen")
        for finding in self.findings:
            self.screen.finding(finding)

    def _show(self, lab: build.Lab) -> None:
        self.screen.lines(drawing(lab.topology))
        self.screen.write("")
        build.up(lab, rules=False, say=lambda line: self.screen.write(f"  {line}"))
        try:
            _Scene(self, lab).play()
        except XlvsError as error:
            # One method that fails must not hide the others.
            self.findings.append(Finding(lab.method.value.upper(), False, str(error)))
            self.screen.finding(self.findings[-1])
        finally:
            build.down(
                lab,
                say=lambda trouble: self.findings.append(Finding(lab.method.value.upper(), False, trouble)),
            )


class _Scene:
    """One method in its lab."""

    def __init__(self, demo: Demo, lab: build.Lab) -> None:
        self._demo, self._lab, self._screen = demo, lab, demo.screen
        self._topology: Topology = lab.topology
        self._service = f"-t {self._topology.service()}"
        self._pages = [f"<h1>{node.name.upper()}</h1>" for node in self._topology.real_servers]

    def play(self) -> None:
        self._type("director", f"xlvs ipvsadm -A {self._service} -s rr")
        if self._topology.local_addresses:
            self._type("director", f"xlvs ipvsadm -P {self._service} -z {self._topology.pool()}")
        for number in range(1, self._lab.real_servers + 1):
            self._type("director", f"xlvs ipvsadm -a {self._server(number)}")
        self._requests()
        self._listing()
        if self._lab.method is Method.FULLNAT:
            self._local_addresses()
        else:
            self._client_addresses()
        self._take_out()
        self._reply_path()

    def _type(self, node: str, line: str) -> str:
        """Type a command on a node, show it with what it prints."""
        self._screen.typed(node, line)
        words = shlex.split(line)
        command = build.xlvs(*words[1:]) if words[0] == "xlvs" else words
        output = self._lab.run(node, command)
        self._screen.lines(output)
        return output

    def _found(self, held: bool, text: str) -> None:
        self._demo.findings.append(Finding(self._lab.method.value.upper(), held, text))

    def _server(self, number: int) -> str:
        return f"{self._service} -r {host_port(self._topology.rip(number))} {self._topology.method.option}"

    def _requests(self) -> None:
        curl = f"curl -sS --max-time 5 {self._topology.url()}"
        answers = [self._type("client", curl).strip() for _ in range(REQUESTS)]
        # rr begins with the server that was added last, as IPVS does.
        expected = [self._pages[-1 - turn % len(self._pages)] for turn in range(REQUESTS)]
        self._found(answers == expected, f"rr gave {_names(answers)}")

    def _listing(self) -> None:
        rows = _rows(self._type("director", "xlvs ipvsadm -Ln"))
        wanted = {host_port(self._topology.rip(number + 1)) for number in range(self._lab.real_servers)}
        connections = sum(int(row[4]) + int(row[5]) for row in rows)
        held = {row[1] for row in rows} == wanted and connections == REQUESTS
        held = held and {row[2] for row in rows} == {self._topology.method.listed}
        self._found(held, f"ipvsadm lists {len(rows)} destinations with {connections} connections")

    def _reply_path(self) -> None:
        rows = _rows(self._type("director", "xlvs ipvsadm -Ln --stats --exact"))
        sent, returned = (sum(int(row[column]) for row in rows) for column in (3, 4))
        through = self._lab.method.translates
        where = f"{returned} reply packets came back" if through else f"{returned} reply packets"
        self._found(sent > 0 and (returned > 0) is through, f"director: {sent} packets in, {where}")

    def _client_addresses(self, before: int = 0) -> None:
        client = self._topology.client.addresses[0]
        seen = self._seen(before)
        text = f"{len(seen)} requests in the real servers' logs, from {' '.join(sorted(set(seen)))}"
        self._found(seen == [client] * REQUESTS, text)

    def _local_addresses(self) -> None:
        """What real servers see of FULLNAT's clients: nothing, until TOA is attached to their nginx."""
        pool = self._type("director", f"xlvs ipvsadm -G {self._service}")
        seen = self._seen()
        known = {line.split()[0] for line in pool.splitlines()[2:]}
        held = len(seen) == REQUESTS and set(seen) <= known
        self._found(held, f"{len(seen)} requests in the real servers' logs, from local addresses")
        for number, node in enumerate(self._topology.real_servers, 1):
            self._type(node.name, f"xlvs {shlex.join(self._lab.toa_command(number))}")
        self._requests()
        self._client_addresses(before=REQUESTS)

    def _seen(self, before: int = 0) -> list[str]:
        """The addresses in the real servers' logs, after so many older requests; shown as well."""
        skipped = before // self._lab.real_servers
        logs = [log[skipped:] for log in self._logs(before + REQUESTS, patience=2.0)]
        for number, log in enumerate(logs, 1):
            counts = sorted(Counter(log).items())
            shown = ", ".join(f"{address} ({count} requests)" for address, count in counts)
            self._screen.write(f"  rs{number}'s access log: {shown or 'nobody'}")
        return [address for log in logs for address in log]

    def _logs(self, wanted: int, patience: float) -> list[list[str]]:
        """Each real server's clients; nginx writes a line a moment after the client has its answer."""
        deadline = time.monotonic() + patience
        while True:
            sites = map(self._lab.site, range(1, self._lab.real_servers + 1))
            logs = [webserver.clients_seen(site) for site in sites]
            if sum(map(len, logs)) >= wanted or time.monotonic() > deadline:
                return logs
            time.sleep(0.01)

    def _take_out(self) -> None:
        last = self._lab.real_servers
        page, rip = self._pages[last - 1], host_port(self._topology.rip(last))
        self._screen.write(f"  four clients ask without pause; meanwhile rs{last} is taken out:")
        with load.running(self._lab, self._topology.url()) as asked:
            asked.wait_for(40)
            self._type("director", f"xlvs ipvsadm -e {self._server(last)} -w 0")
            drained = self._drained(rip)
            before = asked.seen()[page]
            asked.wait_for(40)
            self._type("director", f"xlvs ipvsadm -d {self._service} -r {rip}")
            asked.wait_for(40)
            late = asked.seen()[page] - before
            self._type("director", f"xlvs ipvsadm -a {self._server(last)}")
            asked.wait_for(40)
            back = asked.seen()[page] - before - late
        counts = ", ".join(f"{_names([answer])} {count}" for answer, count in sorted(asked.answers.items()))
        self._screen.lines(f"{asked.requests} requests: {counts}; {len(asked.failures)} failed")
        self._screen.lines("\n".join(sorted(set(asked.failures))[:3]))
        self._found(
            drained and not asked.failures and late == 0 and back > 0,
            f"rs{last} out and in again under load: {asked.requests} requests, {len(asked.failures)} failed,"
            f" {late} to rs{last} while it was out, {back} after",
        )

    def _drained(self, rip: str, patience: float = 5.0) -> bool:
        """Wait until the listing shows no active connection to a real server."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            listing = self._lab.run("director", build.xlvs("ipvsadm", "-Ln"))
            if all(int(row[4]) == 0 for row in _rows(listing) if row[1] == rip):
                time.sleep(0.3)  # the clients whose connections just ended have yet to count their answers
                return True
            time.sleep(0.05)
        return False


def _rows(listing: str) -> list[list[str]]:
    """The words of the destinations' lines of a listing: ``->``, address and port, and what follows."""
    rows = [line.split() for line in listing.splitlines()]
    return [row for row in rows if row[:1] == ["->"] and row[1] != "RemoteAddress:Port"]


def _names(pages: Sequence[str]) -> str:
    return " ".join(page.removeprefix("<h1>").removesuffix("</h1>") for page in pages)


def can_run() -> None:
    """XlvsError where the demo's programs are missing, before anything is built."""
    for program in (["ip", "-V"], ["nginx", "-v"], ["curl", "-V"], ["nsenter", "-V"]):
        namespaces.run(program)
