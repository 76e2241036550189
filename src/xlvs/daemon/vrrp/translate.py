"""From the configuration's words to the machines' settings."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from xlvs.daemon.vrrp.places import depends_on
from xlvs.keepalived.config import Config, Instance, SyncGroup, Tracked
from xlvs.vrrp.settings import Announcements, GroupSettings, Settings, Track, TrackKind

_Own = Mapping[str, tuple[int, bool]]


def settings_of(instance: Instance, config: Config) -> Settings:
    """What an instance's machine is made with."""
    garp = instance.garp
    return Settings(
        name=instance.name,
        router_id=instance.router_id,
        family=6 if instance.family == socket.AF_INET6 else 4,
        version=instance.version,
        master=instance.state == "MASTER",
        priority=instance.priority,
        advert=instance.advert,
        down_adverts=instance.down_timer_adverts,
        addresses=tuple(one.address.ip for one in instance.addresses),
        auth=instance.auth,
        key=instance.auth_key,
        preempt=instance.preempt,
        preempt_delay=instance.preempt_delay,
        source=instance.source,
        unicast=instance.unicast,
        peers=instance.peers,
        peer_ttl=instance.peer_ttl,
        check_unicast_source=instance.check_unicast_src,
        multicast_group=instance.multicast_group,
        skip_known_addresses=instance.skip_check_adv_addr,
        lower_priority_no_advert=instance.lower_prio_no_advert,
        higher_priority_send_advert=instance.higher_prio_send_advert,
        old_checksum=instance.old_unicast_checksum,
        old_checksum_heard=instance.checksum_compatibility,
        notify_priority=instance.notify.priority_changes,
        announcements=Announcements(
            master_delay=garp.master_delay,
            master_repeat=garp.master_repeat,
            master_refresh=garp.master_refresh,
            master_refresh_repeat=garp.master_refresh_repeat,
            lower_priority_delay=garp.lower_prio_delay,
            lower_priority_repeat=garp.lower_prio_repeat,
        ),
        tracks=_without(depends_on(instance, config), _tracks(instance, config)),
    )


def _without(depended: frozenset[str], tracks: Iterable[Track]) -> tuple[Track, ...]:
    """An interface that must be up anyhow moves no priority, as in keepalived."""
    return tuple(
        track for track in tracks if not (track.kind is TrackKind.INTERFACE and track.name in depended)
    )


def group_of(group: SyncGroup, config: Config) -> GroupSettings:
    """What a sync group is made with."""
    return GroupSettings(
        name=group.name,
        members=group.members,
        tracks=_tracks(group, config),
        # The older keyword does the same in 2.2.7: what its members track keeps its weights.
        tracking_weight=group.sync_group_tracking_weight or group.global_tracking,
    )


def _tracks(one: Instance | SyncGroup, config: Config) -> tuple[Track, ...]:
    scripts = {script.name: (script.weight, script.reverse) for script in config.scripts}
    files = {file.name: (file.weight, file.reverse) for file in config.files}
    processes = {process.name: (process.weight, process.reverse) for process in config.processes}
    bfds = {bfd.name: (bfd.weight, bfd.reverse) for bfd in config.bfds}
    return (
        *_of_kind(TrackKind.INTERFACE, one.track_interfaces, {}),
        *_of_kind(TrackKind.SCRIPT, one.track_scripts, scripts),
        *_of_kind(TrackKind.FILE, one.track_files, files),
        *_of_kind(TrackKind.PROCESS, one.track_processes, processes),
        *_of_kind(TrackKind.BFD, one.track_bfds, bfds),
    )


def _of_kind(kind: TrackKind, tracked: Iterable[Tracked], own: _Own) -> Iterable[Track]:
    for one in tracked:
        weight, reverse = own.get(one.name, (0, False))
        yield Track(
            kind,
            one.name,
            weight if one.weight is None else one.weight,
            reverse if one.reverse is None else one.reverse,
        )
