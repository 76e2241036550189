"""What iproute2's ``ip`` and nftables' ``nft`` are asked to do: routes, rules, virtual MACs, filters.

An operator writes routes and rules in iproute2's words, so iproute2 reads them: nobody else knows
them all. One process carries out any number of commands, and nobody waits for it in between.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

# Answers that say that things are as they should be already.
_FINE = ("File exists", "No such process", "No such file or directory", "Cannot find device")
_SIX = "-6 "
_NARROW = (
    "local",
    "nat",
    "broadcast",
    "multicast",
    "anycast",
)  # routes whose scope is narrower by their type
_PATIENCE = 30.0  # seconds that a batch may take
_REMEMBERED = 256  # processes whose doings may still be told by the kernel

log = logging.getLogger(__name__)


def route(words: Sequence[str], delete: bool = False) -> str:
    """The line of ``ip -batch`` for a route's words, of which the first may be ``inet6``.

    ``protocol`` is ours where they name none; ``via A or B dev D`` is two ways for iproute2:
    ``nexthop via A dev D nexthop via B dev D``.
    """
    family, done = _family(words)
    ways: list[str] = []
    if "or" in done:
        hops = [done[at + 1] for at, word in enumerate(done[:-1]) if word in ("via", "or")]
        device: list[str] = []
        for word in ("via", *["or"] * (len(hops) - 1), *(["dev"] if "dev" in done else [])):
            at = done.index(word)
            device = done[at : at + 2]  # the last one, if any
            del done[at : at + 2]
        device = device if device[0] == "dev" else []
        ways = [word for hop in hops for word in ("nexthop", "via", hop, *device)]
    elif "nexthop" in done:
        at = done.index("nexthop")
        done, ways = done[:at], done[at:]
    if not {"proto", "protocol"} & {*done}:
        done += ["protocol", "keepalived"]
    if not family and "scope" not in done and done[0] not in _NARROW:
        done += ["scope", "global"]  # as keepalived; iproute2 says link where there is no gateway
    return f"{family}route {'del' if delete else 'replace'} {_text([*done, *ways])}"


def rule(words: Sequence[str], delete: bool = False) -> str:
    """The line for a rule's words, of which the first may be ``inet6``."""
    family, done = _family(words)
    if "protocol" not in done:
        done += ["protocol", "keepalived"]
    return f"{family}rule {'del' if delete else 'add'} {_text(done)}"


def _family(words: Sequence[str]) -> tuple[str, list[str]]:
    """How the line begins, and the words without the family that they may begin with."""
    if words and words[0] in ("inet", "inet6"):
        return _SIX if words[0] == "inet6" else "", list(words[1:])
    return "", list(words)


def _text(words: Iterable[str]) -> str:
    """Words as ip's batch reads them: none can become two, or another line."""
    return " ".join(word if word.isprintable() and not set(word) & set(" \"'\\#") else "?" for word in words)


class Commands:
    """Runs batches of ``ip`` lines and ``nft`` rulesets one after the other, in the background."""

    def __init__(self) -> None:
        self._last: asyncio.Task[None] | None = None
        self.processes: deque[int] = deque(maxlen=_REMEMBERED)  # the numbers of the last ones, ended or not

    def run(self, lines: Sequence[str]) -> None:
        """Have the lines carried out after all those before; what fails is logged."""
        for command, text in _batches(lines):
            self._queue(command, text)

    def load_filter(self, text: str) -> None:
        """Have nft load a ruleset, all of it or nothing, after everything before."""
        self._queue(("nft", "-f", "-"), text)

    def _queue(self, command: Sequence[str], text: str) -> None:
        self._last = asyncio.get_running_loop().create_task(self._after(self._last, command, text))

    async def _after(self, before: asyncio.Task[None] | None, command: Sequence[str], text: str) -> None:
        if before is not None:
            await asyncio.wait([before])
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process.pid)
        try:
            _, complaints = await asyncio.wait_for(process.communicate(text.encode()), _PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()
            log.error("%s does not answer: %s", command[0], text.partition("\n")[0])
            return
        _complain(command[0], complaints.decode(errors="replace"))

    async def finish(self) -> None:
        """Wait until everything is done."""
        if self._last is not None:
            await asyncio.wait([self._last])


def _batches(lines: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The process for each family (ip takes no family inside a batch) and its input."""
    for family, chosen in (
        ((), [line for line in lines if not line.startswith(_SIX)]),
        (("-6",), [line.removeprefix(_SIX) for line in lines if line.startswith(_SIX)]),
    ):
        if chosen:
            yield ("ip", *family, "-force", "-batch", "-"), "".join(f"{line}\n" for line in chosen)


def ip_now(lines: Sequence[str]) -> None:
    """Carry out ``ip`` lines and wait for it; what fails is logged."""
    for command, text in _batches(lines):
        _complain(command[0], _now(command, text))


def filter_now(text: str) -> None:
    """Have nft load a ruleset, and wait for it; what fails is logged."""
    _complain("nft", _now(("nft", "-f", "-"), text))


def _now(command: Sequence[str], text: str) -> str:
    try:
        done = subprocess.run(
            command, input=text, text=True, capture_output=True, check=False, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return done.stderr if done.returncode else ""


def _complain(program: str, text: str) -> None:
    for line in text.splitlines():
        if not line.startswith("Command failed") and not any(fine in line for fine in _FINE):
            log.error("%s: %s", program, line)
