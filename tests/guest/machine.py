"""Boot the guest, run one command line in it, bring back what it printed and its exit status."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.guest.kernel import GuestError, Kernel, default_cache, kernel

# What is needed, and the Debian package that has it (packages.txt names them all).
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "cpio": "cpio",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "depmod": "kmod",
    "setpriv": "util-linux",
}
# QEMU's own virtiofsd (Debian 12), then the separate one of later releases.
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
# Folders of this machine that are fresh in the guest (see INIT in kernel.py).
FRESH = ("/tmp", "/run", "/mnt")
VENV = Path(__file__).resolve().parents[2] / ".venv/bin"

INIT = """#!/bin/bash
export PATH={path} HOME=/root TERM=dumb LANG=C.UTF-8 IPVS_GUEST=1
mkdir -p /run/netns /run/lock /dev/pts /dev/shm /lib/modules/{version}
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
mount -t bpf bpf /sys/fs/bpf; mount -t tracefs trace /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
mount --bind {modules} /lib/modules/{version}
ip link set lo up; echo 1 > /proc/sys/net/core/bpf_jit_enable
cd {folder} || exit 1
bash /mnt/control/command < /dev/null > /mnt/control/stdout 2> /mnt/control/stderr
echo $? > /mnt/control/status
sync; exec /bin/busybox poweroff -f
"""


@dataclass(frozen=True)
class CompletedGuest:
    """What the command printed in the guest, and its exit status."""

    stdout: str
    stderr: str
    status: int


def run_in_guest(
    command: str,
    share: Path | None = None,
    timeout: float = 800,
    *,
    memory: int = 2048,
    cpus: int = 2,
    on_output: Callable[[str, str], None] | None = None,
) -> CompletedGuest:
    """Run ``command`` (for bash) in a guest of its own.

    ``share`` is a folder here that is /mnt/share there, read-write. ``timeout`` is in seconds
    and covers boot and command; ``memory`` is in MiB. ``on_output("stdout"|"stderr", text)``
    gets the output as it comes. Raises :class:`GuestError` where the command's status could
    not be had: tools missing, no boot, timeout.
    """
    _check_tools()
    system = kernel(default_cache())
    with tempfile.TemporaryDirectory(prefix="ipvs-guest.") as scratch:
        control = Path(scratch) / "control"
        _fill_control(control, command, system)
        folders = {"root": Path("/"), "control": control}
        if share is not None:
            folders["share"] = share.resolve()
        console = Path(scratch) / "console"
        with ExitStack() as stack:
            sockets = {
                tag: stack.enter_context(_shared(tag, folder, Path(scratch)))
                for tag, folder in folders.items()
            }
            qemu = stack.enter_context(_process(_qemu(system, sockets, console, memory, cpus), console))
            _follow(qemu, control, time.monotonic() + timeout, on_output)
        status = (control / "status").read_text().strip()
        if not status:
            tail = console.read_text(errors="replace").replace("\r", "")[-2000:].strip()
            raise GuestError(f"the guest ended before the command did; its console's last words:\n{tail}")
        return CompletedGuest(_text(control / "stdout"), _text(control / "stderr"), int(status))


def _check_tools() -> None:
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if not any(os.access(path, os.X_OK) for path in VIRTIOFSD):
        missing.append("qemu-system-common")
    if missing:
        raise GuestError(f"the guest needs Debian packages that are missing here: {' '.join(missing)}")
    if os.geteuid():
        raise GuestError("the guest needs root here: virtiofsd serves this machine's files to it")


def _fill_control(control: Path, command: str, system: Kernel) -> None:
    """What the guest reads (init, command, kept) and writes (stdout, stderr, status)."""
    control.mkdir()
    here = Path.cwd()
    wanted = (here, system.modules)
    kept = [path for path in wanted if any(path.is_relative_to(fresh) for fresh in FRESH)]
    (control / "kept").write_text("".join(f"{path}\n" for path in kept))
    (control / "command").write_text(command + "\n")
    init = INIT.format(
        path=shlex.quote(f"{VENV}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        version=system.version,
        modules=shlex.quote(str(system.modules)),
        folder=shlex.quote(str(here)),
    )
    (control / "init").write_text(init)
    (control / "init").chmod(0o755)
    for name in ("stdout", "stderr", "status"):
        (control / name).touch()


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with the block, and with this process however that dies."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@contextmanager
def _shared(tag: str, folder: Path, scratch: Path) -> Iterator[Path]:
    """Serve a folder to the guest; gives the socket that QEMU connects to."""
    socket = scratch / f"{tag}.sock"
    daemon = next(path for path in VIRTIOFSD if os.access(path, os.X_OK))
    # The root is only read, and what changes here meanwhile is no business of a guest's short life.
    cache = "always" if tag == "root" else "auto"
    options = f"source={folder},cache={cache},sandbox=chroot"
    log = scratch / f"{tag}.log"
    with _process([daemon, f"--socket-path={socket}", "-o", options], log) as server:
        deadline = time.monotonic() + 60
        while not socket.is_socket():
            if server.poll() is not None or time.monotonic() > deadline:
                raise GuestError(f"virtiofsd does not start: {log.read_text(errors='replace').strip()}")
            time.sleep(0.02)
        yield socket


def _qemu(system: Kernel, sockets: dict[str, Path], console: Path, memory: int, cpus: int) -> list[str]:
    # Not KVM: where a machine is itself virtual, /dev/kvm may be there and hang. Emulation runs anywhere.
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus)]
    command += ["-m", str(memory), "-numa", "node,memdev=memory"]
    command += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
    for tag, socket in sockets.items():
        command += ["-chardev", f"socket,id={tag},path={socket}"]
        command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot"]
    command += ["-serial", f"file:{console}", "-kernel", str(system.image), "-initrd", str(system.ramdisk)]
    command += ["-append", "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off no_timer_check"]
    return command


def _follow(
    qemu: subprocess.Popen[bytes],
    control: Path,
    deadline: float,
    on_output: Callable[[str, str], None] | None,
) -> None:
    """Pass the command's output on until the guest has powered off."""
    with (control / "stdout").open("rb") as stdout, (control / "stderr").open("rb") as stderr:
        running = True
        while running:
            running = qemu.poll() is None
            for name, stream in (("stdout", stdout), ("stderr", stderr)):
                text = stream.read()
                if text and on_output:
                    on_output(name, text.decode(errors="replace"))
            if running and time.monotonic() > deadline:
                raise GuestError("the guest took longer than its timeout allows")
            if running:
                time.sleep(0.05)


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
