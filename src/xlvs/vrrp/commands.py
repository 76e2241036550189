"""What a machine asks of whoever runs it, to be carried out in this order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from xlvs.vrrp.packet import Advert


class State(Enum):
    """An instance's state; values are the words of notify scripts, INIT and STOP our own additions."""

    INIT = "INIT"
    BACKUP = "BACKUP"
    MASTER = "MASTER"
    FAULT = "FAULT"
    STOP = "STOP"


class Event(Enum):
    """What notify scripts and fifos are told; values are keepalived's words for them."""

    BACKUP = "BACKUP"
    MASTER = "MASTER"
    FAULT = "FAULT"
    STOP = "STOP"
    DELETED = "DELETED"
    MASTER_RX_LOWER_PRI = "MASTER_RX_LOWER_PRI"
    MASTER_PRIORITY = "MASTER_PRIORITY"
    BACKUP_PRIORITY = "BACKUP_PRIORITY"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this advert: to the group, or to every peer. One datagram a peer, each numbered anew.

    ``old_checksum`` is that of :func:`xlvs.vrrp.packet.message`.
    """

    instance: str
    advert: Advert
    old_checksum: bool = False


@dataclass(frozen=True, slots=True)
class Become:
    """The instance's state has changed; what it did follows as commands of its own."""

    instance: str
    state: State
    before: State


@dataclass(frozen=True, slots=True)
class AddAddresses:
    """Put the addresses, routes and rules of the instance in place."""

    instance: str


@dataclass(frozen=True, slots=True)
class RemoveAddresses:
    """Take the addresses, routes and rules of the instance away (what is not there is no error)."""

    instance: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Send each address's gratuitous ARP or unsolicited neighbour advertisement ``repeat`` times."""

    instance: str
    repeat: int


@dataclass(frozen=True, slots=True)
class Notify:
    """Run the scripts of ``event`` and write to the fifos. ``group``: ``name`` is a sync group's."""

    name: str
    event: Event
    priority: int
    group: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log, in keepalived's words where it has such a line; ``detail``: for -D alone."""

    text: str
    detail: bool = False


Command = Send | Become | AddAddresses | RemoveAddresses | Announce | Notify | Log
