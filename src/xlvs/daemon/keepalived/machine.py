"""What the parser asks of this machine: interfaces, users, programs."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shutil
import socket
import struct

from xlvs.keepalived.host import Link

_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_LOOPBACK, _MULTICAST = 0x8, 0x1000  # IFF_* of linux/if.h
_NAME_BYTES = 15  # IFNAMSIZ without its end


class Machine:
    """The real one, as it is at each question, in the network namespace of the caller."""

    def link(self, name: str) -> Link | None:
        raw = name.encode(errors="surrogateescape")
        if not raw or len(raw) > _NAME_BYTES or b"\0" in raw:
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s16x", raw))
            except OSError:
                return None
        flags = struct.unpack_from("16xH", answer)[0]
        return Link(name, bool(flags & _LOOPBACK), bool(flags & _MULTICAST))

    def user(self, name: str) -> bool:
        try:
            pwd.getpwnam(name)
        except (KeyError, ValueError):
            return False
        return True

    def group(self, name: str) -> bool:
        try:
            grp.getgrnam(name)
        except (KeyError, ValueError):
            return False
        return True

    def program(self, path: str) -> bool:
        found = path if "/" in path else shutil.which(path)
        return found is not None and os.path.isfile(found) and os.access(found, os.X_OK)
