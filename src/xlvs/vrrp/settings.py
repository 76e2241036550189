"""What a VRRP instance and a sync group need to know of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from xlvs.vrrp.packet import GROUP4, GROUP6, OWNER, Address


@dataclass(frozen=True, slots=True)
class Announcements:
    """When gratuitous ARPs and unsolicited NAs are sent, and how many: seconds; a 0 is never."""

    master_delay: float = 5.0
    master_repeat: int = 5
    master_refresh: float = 0.0
    master_refresh_repeat: int = 1
    lower_priority_delay: float = 5.0
    lower_priority_repeat: int = 5


class TrackKind(Enum):
    """What can be tracked; names are unique within a kind."""

    INTERFACE = "interface"
    SCRIPT = "script"
    FILE = "file"
    PROCESS = "process"
    BFD = "bfd"


@dataclass(frozen=True, slots=True)
class Track:
    """One tracked thing. ``weight`` 0: it is a fault while it is down; else it moves the priority."""

    kind: TrackKind
    name: str
    weight: int = 0
    reverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One virtual router. ``addresses`` are those that adverts tell, in order; ``family`` is 4 or 6.

    ``advert`` is the interval in seconds. ``peers`` empty: multicast to ``group``. ``source`` is None
    where the interface's own address is used (``Machine.source`` is told which).
    """

    name: str
    router_id: int
    family: int = 4
    version: int = 2
    master: bool = False  # the configured state: only an owner of priority 255 begins as that
    priority: int = 100
    advert: float = 1.0
    down_adverts: int = 3
    addresses: tuple[Address, ...] = ()
    auth: str = ""
    key: bytes = b""
    preempt: bool = True
    preempt_delay: float = 0.0
    source: Address | None = None
    unicast: bool = False
    peers: tuple[Address, ...] = ()
    peer_ttl: tuple[tuple[int, int], ...] = ()  # of each peer, if any: the least and most TTL accepted
    check_unicast_source: bool = False
    multicast_group: Address | None = None
    skip_known_addresses: bool = False  # skip_check_adv_addr
    lower_priority_no_advert: bool = False
    higher_priority_send_advert: bool = False
    old_checksum: bool = False
    old_checksum_heard: bool = True  # from peers; whoever hears it speaks it from then on
    notify_priority: bool = False
    announcements: Announcements = Announcements()
    tracks: tuple[Track, ...] = ()

    @property
    def owner(self) -> bool:
        """The router whose own the addresses are: nothing changes its priority."""
        return self.priority == OWNER

    @property
    def destinations(self) -> tuple[Address, ...]:
        """Where adverts go."""
        if self.unicast:
            return self.peers
        return (self.multicast_group or (GROUP4 if self.family == 4 else GROUP6),)


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """A sync group: its members are all master, or none is."""

    name: str
    members: tuple[str, ...]
    tracks: tuple[Track, ...] = ()
    tracking_weight: bool = False  # members' own weights count (sync_group_tracking_weight)
