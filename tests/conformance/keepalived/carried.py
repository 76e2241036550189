"""What the daemon's parts make of a configuration: a child that cannot take one dies, again and again."""

from __future__ import annotations

from xlvs.daemon.keepalived import capabilities
from xlvs.daemon.keepalived.bfd import timing_of
from xlvs.daemon.keepalived.checkers import checks_of
from xlvs.daemon.keepalived.child import CHILDREN
from xlvs.daemon.keepalived.pool import Pool
from xlvs.daemon.keepalived.synchronisation import daemons
from xlvs.daemon.vrrp.places import promoted, refused_places, sites_of, static_places
from xlvs.daemon.vrrp.translate import group_of, settings_of
from xlvs.keepalived.config import Config
from xlvs.network.ip_commands import route, rule
from xlvs.network.route_losses import policy_of, way_of

_MANY = 2000  # services: more take too long here


def carry_out(config: Config) -> None:
    """Hand it to all that takes a configuration as it is; raises what they would."""
    for child in ("", *CHILDREN):
        capabilities.needed(child, config)
    _vrrp(config)
    for bfd in config.bfds:
        timing_of(bfd)
    if sum(len(server.vips) for server in config.virtual_servers) < _MANY:
        checks_of(config)
        for server in config.virtual_servers:
            pool = Pool(server, {})
            pool.begin()
            pool.wanted(1.0)


def _vrrp(config: Config) -> None:
    sites = sites_of(config)
    static_places(config)
    promoted(config.instances)
    for instance in config.instances:
        settings_of(instance, config)
        refused_places(instance, sites[instance.name])
    for group in config.groups:
        group_of(group, config)
    for way in config.static_routes:
        route(way.words)
        way_of(way.words)
    for policy in config.static_rules:
        rule(policy.words)
        policy_of(policy.words)
    for master in (True, False):
        daemons(config, master=master)
