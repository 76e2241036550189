"""Asking an interface itself whether it has a carrier, where the kernel's notices are not to be trusted."""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
from array import array

# linux/sockios.h, linux/ethtool.h, linux/mii.h, linux/if.h
_SIOCGIFFLAGS, _SIOCETHTOOL, _SIOCGMIIPHY, _SIOCGMIIREG = 0x8913, 0x8946, 0x8947, 0x8948
_ETHTOOL_GLINK = 0x0A
_MII_BMSR, _BMSR_LSTATUS = 1, 0x0004
_NO_TRANSCEIVER = (0x0000, 0xFFFF)  # what a bus without one reads as
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_KINDS = ("MII", "ETHTOOL", "IOCTL")  # in keepalived's order of preference
_VALUE = struct.Struct("=II")  # struct ethtool_value
_MII = struct.Struct("@16s4H16x")  # struct ifreq with a struct mii_ioctl_data
_POINTER = struct.Struct("@16sP16x")
_FLAGS = struct.Struct("@16sH22x")

log = logging.getLogger(__name__)


class Linkbeat:
    """Asks by MII registers, by ethtool or by the interface's flags: the first of them that it answers to."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._kinds: dict[tuple[str, str], str] = {}  # what each answers to, by what it is to be asked by

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()

    def beats(self, name: str, wanted: str = "") -> bool:
        """Whether the interface has a carrier; one that is not there has none. ``wanted`` is tried first."""
        kind = self._kinds.get((name, wanted))
        for each in (kind,) if kind else sorted(_KINDS, key=lambda one: one != wanted):
            try:
                answer = self._ask(name, each)
            except OSError:
                continue
            if kind is None:
                if wanted not in ("", each):
                    log.info("(%s): Configured linkbeat type %s not supported, using %s", name, wanted, each)
                self._kinds[name, wanted] = each
            return answer
        self._kinds.pop((name, wanted), None)  # another card may come back under its name
        return False

    def _ask(self, name: str, kind: str) -> bool:
        if kind == "MII":
            return self._mii(name)
        called = name.encode(errors="surrogateescape")
        if kind == "ETHTOOL":
            value = array("B", _VALUE.pack(_ETHTOOL_GLINK, 0))
            self._ioctl(_SIOCETHTOOL, _POINTER.pack(called, value.buffer_info()[0]))
            return bool(_VALUE.unpack(value.tobytes())[1])
        flags: int = _FLAGS.unpack(self._ioctl(_SIOCGIFFLAGS, _FLAGS.pack(called, 0)))[1]
        return flags & _IFF_UP != 0 and flags & _IFF_RUNNING != 0

    def _mii(self, name: str) -> bool:
        called = name.encode(errors="surrogateescape")
        phy: int = _MII.unpack(self._ioctl(_SIOCGMIIPHY, _MII.pack(called, 0, 0, 0, 0)))[1]
        status = 0
        for _ in range(2):  # the first reading tells of a loss since the last one
            status = _MII.unpack(self._ioctl(_SIOCGMIIREG, _MII.pack(called, phy, _MII_BMSR, 0, 0)))[4]
        if status in _NO_TRANSCEIVER:
            raise OSError(f"{name} has no MII transceiver")
        return status & _BMSR_LSTATUS != 0

    def _ioctl(self, request: int, text: bytes) -> bytes:
        return fcntl.ioctl(self._socket, request, text)
