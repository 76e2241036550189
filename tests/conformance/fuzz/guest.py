"""The real side: real ipvsadm on the real IPVS of the guest, one loaded process for thousands of runs."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.fuzz.commands import Command
from tests.conformance.fuzz.recording import LISTINGS, RESET, Step
from tests.conformance.fuzz.vocabulary import HOSTS, INTERFACES, SCHEDULERS
from tests.conformance.ipvsadm.table import Answer
from tests.guest.machine import run_in_guest

ZYGOTE = Path(__file__).with_name("zygote.c")
_KEPT = 0xFFFFFFFF
# So often the listings are also asked one by one: they must be what one run of -R gives.
_ONE_BY_ONE = 50

_PROLOGUE = """
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cat > /etc/hosts < /mnt/share/hosts
: > /etc/resolv.conf
echo 'hosts: files' > /etc/nsswitch.conf
echo 'services: files' >> /etc/nsswitch.conf
modprobe ip_vs
modprobe dummy numdummies=0
"""
_EPILOGUE = """
cp /mnt/share/requests /tmp/requests
export ZYGOTE_REQUESTS=/tmp/requests ZYGOTE_ANSWERS=/tmp/answers LD_BIND_NOW=1
LD_PRELOAD=/mnt/share/zygote.so ipvsadm
cp /tmp/answers /mnt/share/answers
uname -r > /mnt/share/kernel
ipvsadm --version > /mnt/share/version
"""


@dataclass(frozen=True)
class Asked:
    """What the real program said: each sequence's steps, and which program on which kernel it was."""

    program: str
    kernel: str
    sequences: list[list[Step]]


@dataclass(frozen=True)
class _Run:
    """One run for the zygote."""

    arguments: tuple[str, ...]
    stdin: str | None = ""
    keep: bool = False

    def packed(self) -> bytes:
        words = [argument.encode() for argument in ("ipvsadm", *self.arguments)]
        parts = [struct.pack("<II", self.keep, len(words))]
        for word in words:
            parts += [struct.pack("<I", len(word)), word]
        stdin = b"" if self.stdin is None else self.stdin.encode()
        parts += [struct.pack("<I", _KEPT if self.stdin is None else len(stdin)), stdin]
        return b"".join(parts)


_LISTED = _Run(("-R",), "".join(f"{listing}\n" for listing in LISTINGS))


def ask(sequences: Sequence[Sequence[Command]], timeout: float = 800) -> Asked:
    """Run sequences in one guest, each from an empty table; ``timeout`` is in seconds."""
    with tempfile.TemporaryDirectory(prefix="xlvs-fuzz.") as scratch:
        share = Path(scratch)
        command = ["clang-16", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(share / "zygote.so"), str(ZYGOTE)], check=True)
        (share / "hosts").write_text(HOSTS)
        (share / "requests").write_bytes(b"".join(run.packed() for run in _runs(sequences)))
        (share / "run.sh").write_text("\n".join([*prologue(), _EPILOGUE]))
        done = run_in_guest("bash /mnt/share/run.sh", share=share, timeout=timeout)
        if done.status:
            raise RuntimeError(f"the guest's script ended with {done.status}: {done.stdout}{done.stderr}")
        answers = _answers((share / "answers").read_bytes())
        steps = [list(_steps(sequence, answers)) for sequence in sequences]
        return Asked((share / "version").read_text().strip(), (share / "kernel").read_text().strip(), steps)


def prologue() -> Iterator[str]:
    """Makes a guest what every sequence runs on: names, modules, interfaces, and no module more."""
    yield _PROLOGUE
    yield from (f"modprobe ip_vs_{name}" for name in (*SCHEDULERS, "pe_sip"))
    for name, (mtu, state, addresses) in INTERFACES.items():
        yield f"ip link add {name} type dummy && ip link set {name} mtu {mtu} {state}"
        yield from (
            f"ip address add {address} dev {name}{' nodad' * (':' in address)}" for address in addresses
        )
    # What is not loaded by now is not there: without this the kernel starts modprobe for each wrong name.
    yield "echo > /proc/sys/kernel/modprobe"


def _runs(sequences: Iterable[Sequence[Command]]) -> Iterator[_Run]:
    for sequence in sequences:
        for words in RESET:
            yield _Run(tuple(words.split()))
        for number, command in enumerate(sequence):
            yield _Run(command.arguments, command.stdin, command.save)
            yield _LISTED
            if number % _ONE_BY_ONE == 0:
                yield from (_Run(tuple(listing.split())) for listing in LISTINGS)


def _answers(data: bytes) -> Iterator[Answer]:
    place = 0
    while place < len(data):
        (status,) = struct.unpack_from("<I", data, place)
        place += 4
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", data, place)
            texts.append(data[place + 4 : place + 4 + length].decode("utf-8", "backslashreplace"))
            place += 4 + length
        yield Answer(texts[0], texts[1], status)


def _steps(sequence: Sequence[Command], answers: Iterator[Answer]) -> Iterator[Step]:
    for _ in RESET:
        next(answers)
    for number, command in enumerate(sequence):
        answer, listed = next(answers), next(answers)
        if listed.stderr:
            raise RuntimeError(f"the listings after {command} complain: {listed.stderr}")
        if number % _ONE_BY_ONE == 0:
            single = "".join(next(answers).stdout for _ in LISTINGS)
            if single != listed.stdout:
                raise RuntimeError(f"after {command}: one by one\n{single}\nby -R\n{listed.stdout}")
        yield Step(command, answer, listed.stdout)
