"""An operator's scripts: run without a shell, as their own user, never longer than they may.

Each has a process group of its own, so that what it started ends with it; its end is waited
for by a pidfd, without a thread or SIGCHLD.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from xlvs.errors import XlvsError
from xlvs.health.checks import Script

# The user that scripts run as where the configuration names none and it exists (keepalived.conf(5)).
DEFAULT_USER = "keepalived_script"
# What a shell says of a command that is not there, or may not be run.
NOT_FOUND, NOT_PERMITTED = 127, 126
_GRACE = 2.0  # seconds from SIGTERM to SIGKILL

log = logging.getLogger(__name__)


class Refused(XlvsError):
    """A script that will not be run; ``status`` is what :func:`run` gives for it."""

    def __init__(self, message: str, status: int = NOT_PERMITTED) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a script runs as. ``groups`` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = field(default=())


async def run(
    script: Script,
    *extra_arguments: str,
    timeout: float | None = None,
    secure: bool = False,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a script to its end and give its exit status; -N where signal N ended it.

    After ``timeout`` seconds (None: it may take any time) its group gets SIGTERM, and SIGKILL where
    that does not help; the status is negative then, whatever it was. Cancelling does the same.
    A script that cannot or, with ``secure`` (enable_script_security), may not be run gives 126 or 127,
    and the reason is logged. ``environment`` is added to ours. Commands that follow (``then``) run after
    it, each within the time; the extra arguments are the last one's, and so is the status.
    """
    while script.then is not None:
        await run(replace(script, then=None), timeout=timeout, secure=secure, environment=environment)
        script = script.then
    try:
        return await once(script, *extra_arguments, timeout=timeout, secure=secure, environment=environment)
    except Refused as refusal:
        log.warning("%s", refusal)
        return refusal.status


async def once(
    script: Script,
    *extra_arguments: str,
    timeout: float | None,
    secure: bool = False,
    environment: Mapping[str, str] | None = None,
) -> int:
    """As :func:`run`, of one command; raises :class:`Refused` where it is not run."""
    path, identity = resolve(script, secure=secure)
    process = _spawn(path, (*script.arguments, *extra_arguments), identity, environment)
    ended = _when_ended(process)
    try:
        await asyncio.wait_for(asyncio.shield(ended), timeout)
    except TimeoutError:
        await _end(process, ended)
        return process.returncode if process.returncode < 0 else -signal.SIGTERM
    except asyncio.CancelledError:
        await _end(process, ended)
        raise
    return process.returncode


def resolve(script: Script, *, secure: bool = False) -> tuple[str, Identity]:
    """The file that would be run and as whom; raises :class:`Refused` where it will not be run."""
    identity = identity_of(script)
    path = _find(script.arguments[0])
    try:
        real = os.path.realpath(path, strict=True)
        mode = os.stat(real).st_mode
    except OSError as error:
        raise Refused(f"Script {path}: {error.strerror}", NOT_FOUND) from error
    if not stat.S_ISREG(mode) or not _executable(real, identity):
        raise Refused(
            f"WARNING - script '{path}' is not executable for uid:gid {_ids(identity)} - disabling."
        )
    if secure and identity.uid == 0:
        writable = _writable_by_others(real)
        if writable:
            raise Refused(
                f"Unsafe permissions found for script '{path}': {writable} can be changed"
                " by other users than root - disabling."
            )
    return path, identity


def identity_of(script: Script) -> Identity:
    """Who a script runs as: its user, ``keepalived_script`` if there is one, or who we are."""
    account = _account(script.user)
    gid = account.pw_gid if account else os.getegid()
    if script.group is not None:
        gid = _group_number(script.group)
    elif account is None and script.user is None:
        return Identity(os.geteuid(), gid, tuple(os.getgroups()))
    uid = account.pw_uid if account else int(script.user or os.geteuid())
    return Identity(uid, gid, tuple(os.getgrouplist(account.pw_name, gid)) if account else (gid,))


# -- the parts ----------------------------------------------------------------------


def _account(name: str | None) -> pwd.struct_passwd | None:
    """The account of a name or number; None for a number without one, and where nobody is named."""
    try:
        if name is None:
            return pwd.getpwnam(DEFAULT_USER)
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name is None or name.isdecimal():
            return None
        raise Refused(f"Unable to resolve script username '{name}' - ignoring") from None


def _group_number(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise Refused(f"Unable to resolve script group name '{name}' - ignoring") from None


def _ids(identity: Identity) -> str:
    return f"{identity.uid}:{identity.gid}"


def _find(name: str) -> str:
    """A name without a slash is looked for along PATH, as keepalived does."""
    if "/" in name:
        return name
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        path = os.path.join(folder or ".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise Refused(f"WARNING - script '{name}' not found - disabling.", NOT_FOUND)


def _executable(path: str, identity: Identity) -> bool:
    """Whether its mode lets this identity run it (root: where anybody may)."""
    found = os.stat(path)
    if identity.uid == 0:
        return bool(found.st_mode & 0o111)
    if identity.uid == found.st_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid in (identity.gid, *identity.groups):
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _writable_by_others(path: str) -> str:
    """The part of the way to a file that others than root may change, or ""."""
    while True:
        found = os.stat(path)
        shared = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid)
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid or (shared and not sticky):
            return path
        if path == "/":
            return ""
        path = os.path.dirname(path)


def _spawn(
    path: str, arguments: tuple[str, ...], identity: Identity, environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    us = Identity(os.geteuid(), os.getegid(), identity.groups)
    other = identity != us  # changing to what we are already would cost the cheap vfork
    try:
        return subprocess.Popen(
            arguments,
            executable=path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
            user=identity.uid if other else None,
            group=identity.gid if other else None,
            extra_groups=identity.groups if other else None,
            env={**os.environ, **environment} if environment else None,
        )
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        text = getattr(error, "strerror", None) or str(error)
        raise Refused(f"Couldn't run script {path}: {text}") from error


def _when_ended(process: subprocess.Popen[bytes]) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError as error:
        process.kill()
        process.wait()
        raise Refused(f"Couldn't wait for process {process.pid}: {error.strerror}") from error

    def reap() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        process.wait()
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, reap)
    return ended


async def _end(process: subprocess.Popen[bytes], ended: asyncio.Future[None]) -> None:
    _signal_group(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(asyncio.shield(ended), _GRACE)
    except TimeoutError:
        _signal_group(process, signal.SIGKILL)
        await ended
    else:
        _signal_group(process, signal.SIGKILL)  # what it started may be deaf, too


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
