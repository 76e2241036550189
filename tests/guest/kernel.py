"""Fetch the guest's kernel once, and build the initial RAM disk that boots this machine's files in it."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-cloud-amd64"
# What the initial RAM disk needs to reach the root file system; the rest is loaded from there.
BOOT_MODULES = ("virtio_pci", "virtiofs", "overlay")
# Raise with every change to INIT or to the layout of the cache.
LAYOUT = 1

INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module; done < /order
mount -t virtiofs -o ro root /lower && mount -t virtiofs control /control || {
    echo "ipvs-guest: no root file system"; poweroff -f
}
mount -t tmpfs -o size=75% ram /ram; mkdir -p /ram/upper /ram/work
mount -t overlay -o lowerdir=/lower,upperdir=/ram/upper,workdir=/ram/work root /new
mkdir -p /new/tmp /new/run /new/mnt
# Folders under a mount point that is about to become fresh stay visible in it.
n=0
while read kept; do n=$((n+1)); mkdir -p /kept/$n; mount --bind "/new$kept" /kept/$n; done < /control/kept
for fresh in tmp run mnt; do mount -t tmpfs $fresh /new/$fresh; done
n=0
while read kept; do n=$((n+1)); mkdir -p "/new$kept"; mount --move /kept/$n "/new$kept"; done < /control/kept
mkdir -p /new/mnt/control /new/mnt/share
mount --move /control /new/mnt/control
mount -t virtiofs share /new/mnt/share 2>/dev/null
mount --move /proc /new/proc; mount --move /sys /new/sys; mount --move /dev /new/dev
exec switch_root /new /mnt/control/init
"""


class GuestError(Exception):
    """The guest cannot be run, or did not get as far as the command; one sentence says why."""


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot: its image, its module folder, its RAM disk."""

    version: str
    image: Path
    modules: Path
    ramdisk: Path


def default_cache() -> Path:
    """Where kernels are kept: IPVS_GUEST_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("IPVS_GUEST_CACHE") or Path(base) / "xlvs-guest").resolve()


def kernel(cache: Path) -> Kernel:
    """The kernel of Debian's cloud image; downloaded and prepared at the first call ever.

    Two runs at once prepare it once: the second one waits. A run that was killed half-way
    leaves nothing that a later one would take for finished.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        package = _package_name()
        home = cache / f"{package}.{LAYOUT}"
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="unfinished.") as scratch:
                _prepare(package, Path(scratch) / "kernel")
                (Path(scratch) / "kernel").rename(home)
    (modules,) = (home / "root/lib/modules").iterdir()
    return Kernel(modules.name, home / f"root/boot/vmlinuz-{modules.name}", modules, home / "ramdisk.gz")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _package_name() -> str:
    """The package that the meta package depends on, the newest one that apt knows."""
    listing = _output(["apt-cache", "depends", META_PACKAGE])
    names = [line.split()[1] for line in listing.splitlines() if line.strip().startswith("Depends: linux-")]
    if not names:
        raise GuestError(
            f"apt knows no {META_PACKAGE}: the guest needs the package lists of Debian 12 (amd64)"
        )
    return names[0]


def _prepare(package: str, home: Path) -> None:
    download = home / "download"
    download.mkdir(parents=True)
    _download(package, download)
    (archive,) = download.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(archive), str(home / "root")])
    shutil.rmtree(download)
    (modules,) = (home / "root/lib/modules").iterdir()
    _run(["depmod", "-b", str(home / "root"), modules.name])
    _build_ramdisk(home, modules.name)


def _download(package: str, folder: Path) -> None:
    command = ["apt-get", "download", "-q", package]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0:
        return
    # The lists may be older than the archive: it keeps only the newest kernels.
    subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise GuestError(f"apt-get download {package} failed: {result.stderr.strip()}")


def _build_ramdisk(home: Path, version: str) -> None:
    tree = home / "ramdisk"
    for folder in ("bin", "proc", "sys", "dev", "lower", "control", "modules", "ram", "new", "kept"):
        (tree / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for applet in ("sh", "mount", "insmod", "mkdir", "switch_root", "poweroff"):
        (tree / "bin" / applet).symlink_to("busybox")
    order: list[str] = []
    for module in BOOT_MODULES:
        listing = _output(["modprobe", "-S", version, "-d", str(home / "root"), "--show-depends", module])
        for line in listing.splitlines():
            action, _, path = line.strip().partition(" ")
            if action == "insmod" and Path(path).name not in order:
                shutil.copy(path.split()[0], tree / "modules")
                order.append(Path(path.split()[0]).name)
    (tree / "order").write_text("".join(f"{name}\n" for name in order))
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))]
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"],
        input="\n".join(names).encode(),
        cwd=tree,
        capture_output=True,
        check=True,
    ).stdout
    (home / "ramdisk.gz").write_bytes(gzip.compress(archive, 1))
    shutil.rmtree(tree)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
