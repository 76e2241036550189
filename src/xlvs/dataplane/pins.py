"""Where pins and locks live: one folder per network namespace in a bpffs of our own.

``ip netns exec`` gives its command a private mount namespace and a fresh /sys; a
bpffs mounted in there vanishes with the command, pins and all. So the bpffs stands
at /run/xlvs/bpf in the mount namespace of the outermost ancestor process that we may
look into (normally the login shell or init), and is reached through
/proc/PID/root when that is not our own. Folders are named by the network
namespace's cookie: inode numbers are used again, cookies are not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from functools import cache

from xlvs.errors import XlvsError

RUN_FOLDER = "/run/xlvs"
BPFFS = "/run/xlvs/bpf"

SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since Linux 5.14
BPF_FS_MAGIC = 0xCAFE4A11  # linux/magic.h
CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8  # linux/mount.h

_libc = ctypes.CDLL(None, use_errno=True)


def netns_cookie() -> int:
    """The cookie of this thread's network namespace: unique while the machine is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
        except OSError as error:
            raise XlvsError("this kernel is too old for xlvs: Linux 6.1 or newer is needed") from error


@cache
def run_folder() -> str:
    """The folder for locks and state files, in the outermost mount namespace (mode 0700)."""
    folder = _outer_root() + RUN_FOLDER
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise XlvsError(f"cannot make {RUN_FOLDER} ({error.strerror}): xlvs must be run as root") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise XlvsError(f"{RUN_FOLDER} is closed to this user: xlvs must be run as root")
    return folder


@cache
def bpffs_folder() -> str:
    """Our bpffs, mounted if it was not; the path works for this process only."""
    folder = run_folder() + "/bpf"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if not _is_bpffs(folder):
        with open(run_folder() + "/mount.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two mounts would hide each other's pins
            if not _is_bpffs(folder):
                _mount_bpffs()
        if not _is_bpffs(folder):
            raise XlvsError(f"cannot mount a BPF file system at {BPFFS}")
    return folder


def namespace_folder() -> str:
    """The folder of the current network namespace's pins (may not exist yet)."""
    return f"{bpffs_folder()}/{netns_cookie():016x}"


def _is_bpffs(path: str) -> bool:
    # struct statfs begins with a long f_type on every 64-bit Linux.
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(path.encode(), buffer) != 0:
        return False
    kind: int = struct.unpack_from("l", buffer.raw)[0]
    return kind & 0xFFFFFFFF == BPF_FS_MAGIC


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[1])


@cache
def _outermost_pid() -> int:
    """The farthest ancestor whose mount namespace we may enter; our own pid if none."""
    chosen = os.getpid()
    pid = _parent(chosen)
    while pid:
        # An ancestor may hide from us: another user's, or init with greater rights.
        if os.access(f"/proc/{pid}/ns/mnt", os.R_OK):
            chosen = pid
        pid = _parent(pid)
    return chosen


@cache
def _outer_root() -> str:
    pid = _outermost_pid()
    if os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino:
        return ""
    return f"/proc/{pid}/root"


def outer_root() -> str:
    """What leads to the file system of the outermost mount namespace; "" where that is our own."""
    return _outer_root()


def outer_mounts() -> list[tuple[str, str]]:
    """Mount points of the outermost mount namespace, each with its file system type."""
    with open(f"/proc/{_outermost_pid()}/mounts", encoding="utf-8") as file:
        lines = [line.split(" ") for line in file]
    return [(line[1].encode().decode("unicode_escape"), line[2]) for line in lines]


def leave_mount_namespace() -> None:
    """Go where the bpffs is mounted, for good: the way through an ancestor ends with it."""
    if _outer_root():
        _enter_mounts(_outermost_pid())
        for cached in (_outer_root, _outermost_pid, run_folder, bpffs_folder):
            cached.cache_clear()


def _enter_mounts(pid: int) -> None:
    with open(f"/proc/{pid}/ns/mnt") as namespace:
        if _libc.setns(namespace.fileno(), CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _mount_bpffs() -> None:
    """Mount in the outer mount namespace, from a child: setns changes a whole process."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            if _outer_root():
                _enter_mounts(_outermost_pid())
            flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
            if _libc.mount(b"xlvs", BPFFS.encode(), b"bpf", flags, b"mode=0700") != 0:
                raise OSError(ctypes.get_errno(), "mount")
        except OSError as error:
            code = error.errno or 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == errno.EPERM:
        raise XlvsError(
            "xlvs may not mount its BPF file system: run it as root, "
            "and in a container with the capability SYS_ADMIN"
        )
    if code:
        raise XlvsError(f"mounting a BPF file system at {BPFFS} failed: {os.strerror(code)}")
