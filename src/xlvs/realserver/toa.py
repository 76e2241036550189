"""The eBPF programs (bpf/toa.bpf.c) that make a real server's sockets show the client.

Programs belong to a cgroup: maps and links are pinned in our bpffs, in a folder named by the
cgroup's id, so that they outlive this process. The path that the operator gave is in the
map ``settings``, beside the TCP option kinds.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from xlvs import dataplane
from xlvs.dataplane import libbpf, pins
from xlvs.errors import XlvsError
from xlvs.realserver import cgroups, pinned
from xlvs.realserver.counters import totals

OBJECT = os.path.join(os.path.dirname(dataplane.__file__), "objects", "toa.bpf.o")
MAPS = ("settings", "from", "peers", "counters", "flows", "arrivals", "answers")
# Programs, and where each is attached: enum bpf_attach_type in linux/bpf.h. What shows clients
# comes after what turns answers back, so that nobody is shown a client whom he cannot answer.
HOOKS = {
    "toa_sendmsg4": 14,
    "toa_sendmsg6": 15,
    "toa_connect4": 10,
    "toa_connect6": 11,
    "toa_getpeername4": 29,
    "toa_getpeername6": 30,
    "toa_getsockopt": 21,
    "toa_recvmsg4": 19,
    "toa_recvmsg6": 20,
    "toa_stream": 3,
    "toa_arrive": 0,
}
KINDS = (254, 200)
# enum counter in bpf/toa/state.h.
COUNTERS = ("connections", "datagram_flows", "foreign", "malformed")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Read = TypeVar("Read")

_FOLDER = "toa-"
_PATH_SIZE = 1024  # CGROUP_PATH
_SETTINGS_SIZE = 256 + _PATH_SIZE  # struct notes
_PREFIX_SIZE = 24  # struct prefix
_FAMILY = {4: 2, 6: 10}  # AF_INET and AF_INET6
_VERSION = {family: version for version, family in _FAMILY.items()}
_ROW = bytes(4)  # the only row of settings


@dataclass(frozen=True, slots=True)
class Attachment:
    """One cgroup whose sockets show clients. ``lost`` names programs that are no longer attached."""

    cgroup: str
    identity: int
    prefixes: tuple[Network, ...]
    kinds: tuple[int, ...]
    lost: tuple[str, ...]
    counters: dict[str, int]


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Prefixes as an operator writes them; a bare address is itself alone."""
    found: list[Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise XlvsError(f"'{text}' is no prefix: {error}") from error
        if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
            raise XlvsError(f"'{text}' is IPv4 mapped into IPv6: write it as IPv4")
        found.append(network)
    return tuple(dict.fromkeys(found))


def attach(prefixes: Sequence[Network], cgroup: str | None = None, kinds: Sequence[int] = KINDS) -> str:
    """Attach to a cgroup (default: the root), or bring what is attached there up to date under traffic.

    Options are believed from peers inside ``prefixes``; ``kinds`` are TCP's. Returns the path.
    """
    path = os.path.abspath(cgroup or cgroups.root())
    if len(path.encode()) >= _PATH_SIZE:
        raise XlvsError(f"{path} is too long a path")
    if not os.path.exists(OBJECT):
        raise XlvsError(f"{OBJECT} is missing: 'make bpf' compiles it")
    with _locked():
        _sweep()
        folder = _folder(cgroups.identity(path))
        fresh = not os.path.isdir(folder)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            _attach(folder, path, prefixes, kinds)
        except BaseException:
            if fresh:
                _remove(folder)
            raise
    return path


def detach(cgroup: str | None = None) -> str | None:
    """Take the programs off a cgroup (default: the root) and leave no pin; the path, None: none there."""
    path = os.path.abspath(cgroup or cgroups.root())
    with _locked():
        # By its path, too: it may have been removed, or made anew, since.
        found = [folder for folder in _folders() if _attachment(folder).cgroup == path]
        if not found:
            found = [folder for folder in (_folder(cgroups.identity(path)),) if os.path.isdir(folder)]
        for folder in found:
            _remove(folder)
    return path if found else None


def status() -> list[Attachment]:
    """Every cgroup that programs were attached to."""
    with _locked():
        return [_attachment(folder) for folder in _folders()]


def _attach(folder: str, path: str, prefixes: Sequence[Network], kinds: Sequence[int]) -> None:
    with libbpf.BpfObject(OBJECT) as program:
        pinned.load(program, folder, MAPS)
        settings, believed = program.map_fd("settings"), program.map_fd("from")
        # The maps before the links: from its first packet on each program knows whom to believe.
        wanted = {key_of(network) for network in prefixes}
        present = set(libbpf.keys(believed, _PREFIX_SIZE))
        for missing in wanted - present:
            libbpf.update(believed, missing, b"\x01")
        for surplus in present - wanted:
            libbpf.delete(believed, surplus)
        chosen = bytes(kind in kinds for kind in range(256))
        libbpf.update(settings, _ROW, chosen + path.encode().ljust(_PATH_SIZE, b"\0"))
        descriptor = cgroups.opened(path)
        try:
            for name, attach_type in HOOKS.items():
                _link(f"{folder}/link-{name}", program.program_fd(name), descriptor, attach_type)
        finally:
            os.close(descriptor)


def _link(path: str, program_fd: int, cgroup_fd: int, attach_type: int) -> None:
    existing = pinned.opened(path)
    if existing is not None:
        try:
            libbpf.update_link(existing, program_fd)
        finally:
            os.close(existing)
        return
    try:
        descriptor = libbpf.attach_cgroup(program_fd, cgroup_fd, attach_type)
    except libbpf.BpfError as error:
        if error.errno == errno.EPERM:
            raise XlvsError(
                "another program holds this cgroup, or one above it, for itself alone (attached without "
                "BPF_F_ALLOW_MULTI; 'bpftool cgroup tree' shows it)"
            ) from error
        raise
    try:
        libbpf.pin(descriptor, path)
    finally:
        os.close(descriptor)


def _attachment(folder: str) -> Attachment:
    settings = _read(f"{folder}/settings", lambda fd: libbpf.lookup(fd, _ROW, _SETTINGS_SIZE) or b"") or b""
    keys = _read(f"{folder}/from", lambda fd: list(libbpf.keys(fd, _PREFIX_SIZE))) or []
    return Attachment(
        cgroup=settings[256:].rstrip(b"\0").decode(),
        identity=_identity(folder),
        prefixes=tuple(sorted(map(prefix_of, keys), key=lambda each: (each.version, each))),
        kinds=tuple(kind for kind, chosen in enumerate(settings[:256]) if chosen),
        lost=tuple(name for name in HOOKS if not _holds(f"{folder}/link-{name}")),
        counters=_read(f"{folder}/counters", lambda fd: totals(fd, COUNTERS)) or {},
    )


def _holds(path: str) -> bool:
    """Whether the link is there and its cgroup, too."""
    return bool(_read(path, libbpf.link_cgroup))


def _sweep() -> None:
    """Take away what is pinned for cgroups that were removed."""
    for folder in _folders():
        links = [f"{folder}/link-{name}" for name in HOOKS]
        if any(map(os.path.exists, links)) and not any(map(_holds, links)):
            _remove(folder)


def _remove(folder: str) -> None:
    """Detach and unpin, in the opposite order: clients are no longer shown before answers go astray."""
    for name in reversed(HOOKS):
        path = f"{folder}/link-{name}"
        if _holds(path):
            # Not by unpinning alone, which the kernel carries out some time later.
            _read(path, libbpf.detach_link)
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)


def _folder(identity: int) -> str:
    return f"{pins.bpffs_folder()}/{_FOLDER}{identity:016x}"


def _identity(folder: str) -> int:
    return int(os.path.basename(folder).removeprefix(_FOLDER), 16)


def _folders() -> list[str]:
    names = sorted(name for name in os.listdir(pins.bpffs_folder()) if name.startswith(_FOLDER))
    return [f"{pins.bpffs_folder()}/{name}" for name in names]


@contextmanager
def _locked() -> Iterator[None]:
    """One ``xlvs toa`` at a time on this machine."""
    descriptor = os.open(pins.bpffs_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: str, reader: Callable[[int], Read]) -> Read | None:
    """What ``reader`` makes of a pinned map or link; None where there is none."""
    descriptor = pinned.opened(path)
    if descriptor is None:
        return None
    try:
        return reader(descriptor)
    finally:
        os.close(descriptor)


def key_of(network: Network) -> bytes:
    """A prefix as the map has it (struct prefix): the bits, the family's 32 among them, then the address."""
    family = _FAMILY[network.version]
    bits = 32 + network.prefixlen
    address = network.network_address.packed.ljust(16, b"\0")
    return bits.to_bytes(4, "little") + family.to_bytes(4, "little") + address


def prefix_of(key: bytes) -> Network:
    """The prefix whose key this is."""
    bits, family = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little")
    packed = key[8:12] if _VERSION[family] == 4 else key[8:24]
    return ipaddress.ip_network((packed, bits - 32))
