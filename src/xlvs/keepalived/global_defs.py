"""Keywords of global_defs, and those of the whole that stand beside it.

Three kinds: what is of the whole (fields of Global), defaults of instances (kept under
``defaults``), and what means nothing here but must be read (Global.others).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlvs.health.checks import Address, Script
from xlvs.keepalived import sync_daemon
from xlvs.keepalived.config import Fifo, Global, Mail
from xlvs.keepalived.global_others import OTHERS
from xlvs.keepalived.global_rows import (
    bounded,
    checked,
    default,
    defaults_of,
    globals_of,
    named,
    other,
    part,
    positive,
    switch,
)
from xlvs.keepalived.reader import CHECKS
from xlvs.keepalived.schema import Draft, Line, Parser, Refused, Row, Table, block, flag, value
from xlvs.keepalived.statics import interval
from xlvs.keepalived.values import decimal, number, parse_address, script
from xlvs.keepalived.vrrp_instance import LINK_LOCAL, extra_interval

_MOST = 2**31 - 1


def _open(line: Line) -> Draft:
    """There may be many global_defs: all fill one draft."""
    draft: Draft = line.parser.top.values.setdefault("globals", Draft("global_defs"))
    return draft


def _close(_parser: Parser, _draft: Draft) -> None:
    """Turned into values by :func:`finish`, once everything is read."""


# -- mail ---------------------------------------------------------------------------


def _recipients(line: Line) -> None:
    mail = globals_of(line.parser).values.setdefault("mail", {})
    found = [word for entry in line.parser.entries(line) for word in entry.words]
    if not found:
        line.warn("Warning - empty notification_email block")
    mail["to"] = (*mail.get("to", ()), *found)
    line.draft.origins["mail.to"] = line.origin


def _server(line: Line) -> None:
    name = line.word()
    port = 25
    if len(line.words) > 2:
        found = number(line, line.words[2], 1, 65535)
        if found is None:
            raise Refused(f"Invalid smtp server {name} {line.words[2]}")
        port = found
    mail = globals_of(line.parser).values.setdefault("mail", {})
    mail["server"], mail["port"] = name, port
    line.draft.origins["mail.server"] = line.origin


def _mail_timeout(line: Line) -> float:
    found = bounded(0, 4294, "smtp_connect_timeout '{word}' must be in [0, 4294] - ignoring")(line)
    if found == 0:
        line.warn("smtp_conect_timeout must be greater than 0, setting to 1")
    return float(found or 1)


_MAIL: dict[str, Row] = {
    "notification_email": Row(_recipients),
    "notification_email_from": part("mail", "sender", named("emailfrom missing - ignoring")),
    "smtp_server": Row(_server),
    "smtp_helo_name": part("mail", "helo_name", lambda line: line.words[1] if len(line.words) > 1 else ""),
    "smtp_connect_timeout": part("mail", "timeout", _mail_timeout),
    "smtp_alert": part("mail", "alert", switch("Invalid value '{word}' for global smtp_alert specified")),
    "smtp_alert_vrrp": part(
        "mail", "alert_vrrp", switch("Invalid value '{word}' for global smtp_alert_vrrp specified")
    ),
    "smtp_alert_checker": part(
        "mail", "alert_checker", switch("Invalid value '{word}' for global smtp_alert_checker specified")
    ),
    "no_email_faults": part("mail", "checker_fault", lambda _line: False),
    "no_checker_emails": checked(switch("Invalid value '{word}' for global no_checker_emails specified")),
}


# -- scripts and fifos --------------------------------------------------------------


def _once_script(which: str) -> Callable[[Line], Script]:
    def kind(line: Line) -> Script:
        if f"{which}_script" in line.draft.values:
            raise Refused(f"{which} script already specified")
        if len(line.words) < 2:
            raise Refused(f"{which} script missing")
        found = script(line)
        host = line.parser.host
        if (found.user and not host.user(found.user)) or (found.group and not host.group(found.group)):
            raise Refused(f"Invalid {which} script")
        return found

    return kind


def _script_timeout(which: str) -> Callable[[Line], float]:
    def kind(line: Line) -> float:
        if len(line.words) < 2:
            raise Refused(f"{which}_script_timeout requires value")
        refusal = f"{which}_script_timeout '{{word}}' must be in [1, 1000] - ignoring"
        return float(bounded(1, 1000, refusal)(line))

    return kind


def _script_user(line: Line) -> None:
    if len(line.words) < 2:
        raise Refused("No script username specified")
    user, group = line.words[1], line.words[2] if len(line.words) > 2 else None
    host = line.parser.host
    if not host.user(user) or (group is not None and not host.group(group)):
        raise Refused("Error setting global script uid/gid")
    line.draft.values["script_user"], line.draft.values["script_group"] = user, group
    line.draft.origins["script_user"] = line.origin


def _fifo(prefix: str, script_too: bool) -> Row:
    """``[vrrp_|lvs_]notify_fifo[_script]``: the path, or the program that reads it."""
    field = f"{prefix}fifo"

    def handle(line: Line) -> None:
        keyword = f"{prefix}notify_fifo" + ("_script" if script_too else "")
        if len(line.words) < 2:
            raise Refused(f"No {keyword}{'' if script_too else ' name'} specified")
        found = line.draft.values.setdefault("fifos", {}).setdefault(field, {})
        part = "script" if script_too else "path"
        if part in found:
            raise Refused(f"{keyword} already specified - ignoring {line.words[1]}")
        found[part] = script(line) if script_too else line.words[1]
        line.draft.origins[field] = line.origin

    return Row(handle)


_SCRIPTS: dict[str, Row] = {
    "script_user": Row(_script_user),
    "enable_script_security": flag("script_security"),
    "startup_script": value("startup_script", _once_script("startup")),
    "startup_script_timeout": value("startup_script_timeout", _script_timeout("startup")),
    "shutdown_script": value("shutdown_script", _once_script("shutdown")),
    "shutdown_script_timeout": value("shutdown_script_timeout", _script_timeout("shutdown")),
    **{
        f"{prefix}notify_fifo{end}": _fifo(prefix, bool(end))
        for prefix in ("", "vrrp_", "lvs_")
        for end in ("", "_script")
    },
    "fifo_write_vrrp_states_on_reload": flag("fifo_write_states_on_reload"),
}


# -- defaults of instances ----------------------------------------------------------


def _group(version: int) -> Callable[[Line], Address]:
    def kind(line: Line) -> Address:
        keyword, word = f"vrrp_mcast_group{version}", line.word()
        found = parse_address(word)
        if found is None:
            raise Refused(f"Can't parse {keyword} [{word}]. Skipping")
        if found.version != version:
            raise Refused(f"{keyword} [{word}] is not IPv{version}. Skipping")
        if not found.is_multicast:
            raise Refused(f"{keyword} [{word}] is not multicast. Skipping")
        if version == 6 and found.packed[1] & 0x0F != LINK_LOCAL:
            line.warn(f"{keyword} [{word}] should be link-local multicast.")
        return found

    return kind


def _extra(line: Line) -> None:
    if line.keyword == "vrrp_vmac_garp_intvl":
        line.warn('Keyword "vrrp_vmac_garp_intvl" is deprecated - please use "vrrp_garp_extra_if"')
    defaults = defaults_of(line.parser)
    defaults["garp.extra_interval"], defaults["garp.extra_all"] = extra_interval(line)


_VRRP: dict[str, Row] = {
    "vrrp_mcast_group4": default("group4", _group(4)),
    "vrrp_mcast_group6": default("group6", _group(6)),
    "vrrp_garp_master_delay": default(
        "garp.master_delay", bounded(0, _MOST, "vrrp_garp_master_delay '{word}' invalid - ignoring")
    ),
    "vrrp_garp_master_repeat": default("garp.master_repeat", positive("vrrp_garp_master_repeat")),
    "vrrp_garp_master_refresh": default(
        "garp.master_refresh", bounded(0, _MOST, "Invalid vrrp_garp_master_refresh '{word}' - ignoring")
    ),
    "vrrp_garp_master_refresh_repeat": default(
        "garp.master_refresh_repeat", positive("vrrp_garp_master_refresh_repeat")
    ),
    "vrrp_garp_lower_prio_delay": default(
        "garp.lower_prio_delay", bounded(0, _MOST, "vrrp_garp_lower_prio_delay '{word}' invalid - ignoring")
    ),
    "vrrp_garp_lower_prio_repeat": default(
        "garp.lower_prio_repeat", bounded(0, _MOST, "Invalid vrrp_garp_lower_prio_repeat '{word}'")
    ),
    "vrrp_down_timer_adverts": default(
        "down_timer_adverts", bounded(1, 100, "Invalid vrrp_down_timer_adverts [1:100] '{word}'")
    ),
    "vrrp_garp_interval": default("garp.interval", interval),
    "vrrp_gna_interval": default("garp.na_interval", interval),
    "vrrp_min_garp": default("min_garp", switch("Invalid value for vrrp_min_garp specified")),
    "vrrp_garp_extra_if": Row(_extra),
    "vrrp_vmac_garp_intvl": Row(_extra),
    "vrrp_lower_prio_no_advert": default(
        "lower_prio_no_advert", switch("Invalid value for vrrp_lower_prio_no_advert specified")
    ),
    "vrrp_higher_prio_send_advert": default(
        "higher_prio_send_advert", switch("Invalid value for vrrp_higher_prio_send_advert specified")
    ),
    "vrrp_version": default("version", bounded(2, 3, "VRRP Error: Version must be either 2 or 3")),
    "vrrp_check_unicast_src": default("check_unicast_src", lambda _line: True),
    "vrrp_skip_check_adv_addr": default("skip_check_adv_addr", lambda _line: True),
    "vrrp_strict": default("strict", lambda _line: True),
    "vrrp_notify_priority_changes": value(
        "notify_priority_changes",
        switch("Invalid value '{word}' for global vrrp_notify_priority_changes specified"),
    ),
    "default_interface": default("interface", named("default_interface requires interface name")),
    "dynamic_interfaces": default("dynamic_interfaces", lambda line: _dynamic(line)),
    "vmac_prefix": value("vmac_prefix", lambda line: line.word()),
    "vmac_addr_prefix": value("vmac_addr_prefix", lambda line: line.word()),
}


def _dynamic(line: Line) -> bool:
    if len(line.words) > 1 and line.words[1] != "allow_if_changes":
        line.warn(f"Unknown dynamic_interfaces option '{line.words[1]}'")
    return True


# -- the whole ----------------------------------------------------------------------


def _timeouts(line: Line) -> None:
    if len(line.words) < 3:
        raise Refused("lvs_timeouts requires at least one option")
    found = line.draft.values.setdefault("lvs_timeouts", {})
    words = line.words[1:]
    while words:
        word = words.pop(0)
        if word not in ("tcp", "tcpfin", "udp"):
            line.warn(f"Unknown option {word} specified for lvs_timeouts")
            continue
        if not words:
            line.warn(f"No value specified for lvs_timeout {word} - ignoring")
            break
        seconds = number(line, text := words.pop(0), 0, _MOST // 1000)
        if seconds is None:
            line.warn(f"Invalid lvs_timeout {word} ({text}) - ignoring")
        else:
            found[word] = seconds
    line.draft.origins["lvs_timeouts"] = line.origin


def _flush_on_stop(line: Line) -> str:
    if len(line.words) < 2:
        return "all"
    if line.words[1] != "VS":
        raise Refused(f"Unknown lvs_flush_on_stop type {line.words[1]}")
    return "vs"


def _delay(line: Line) -> float:
    return decimal(line, line.word(), 0.001, 4294.967295, "vrrp_startup_delay '{word}' is invalid")


def _include_check(line: Line) -> None:
    """``include_check [[+|-]CHECK ...]`` holds from here to the end of the file, and in what it includes."""
    reader = line.parser.reader
    names = set(CHECKS.values())
    words = line.words[1:] or sorted(names)
    signed = words[0][0] in "+-"
    checks = set(reader.checks) if signed else set()
    for word in words:
        name = word.lstrip("+-")
        if name not in names:
            line.warn(f"Unknown include_check type '{word}' - ignoring")
        elif word.startswith("-"):
            checks.discard(name)
        else:
            checks.add(name)
    reader.checks = frozenset(checks)


def _seed(line: Line) -> None:
    found = number(line, line.word(), 0, 2**32 - 1)
    if found is None:
        raise Refused(f"random_seed {line.word()} invalid")
    line.parser.reader.seed(found)


_WHOLE: dict[str, Row] = {
    "router_id": value("router_id", named("routerid name missing - ignoring")),
    "lvs_sync_daemon": value("lvs_sync_daemon", sync_daemon.sync_daemon),
    "lvs_timeouts": Row(_timeouts),
    "lvs_flush": flag("lvs_flush"),
    "lvs_flush_on_stop": value("lvs_flush_on_stop", _flush_on_stop),
    "checker_log_all_failures": value(
        "checker_log_all_failures", switch("Invalid value for checker_log_all_failures specified")
    ),
    "vrrp_startup_delay": value("vrrp_startup_delay", _delay),
    "include_check": Row(_include_check),
    "random_seed": Row(_seed),
}
KEYWORDS: Table = {**_WHOLE, **_MAIL, **_SCRIPTS, **_VRRP, **OTHERS}


def _outside(field: str, missing: str, twice: str) -> Row:
    """A keyword beside global_defs that names something once."""

    def handle(line: Line) -> None:
        values = globals_of(line.parser).values
        if len(line.words) < 2:
            if missing:
                raise Refused(missing)
            values[field] = ""
            return
        if values.get(field):
            raise Refused(twice.format(word=line.words[1]))
        values[field] = line.words[1]
        globals_of(line.parser).origins[field] = line.origin

    return Row(handle)


def _pid_dir(line: Line) -> None:
    globals_of(line.parser).values["use_pid_dir"] = True


TOP: Table = {
    "global_defs": block(KEYWORDS, _open, _close),
    "net_namespace": _outside(
        "net_namespace",
        "net_namespace name missing - ignoring",
        "Duplicate net_namespace definition {word} - ignoring",
    ),
    "net_namespace_ipvs": _outside(
        "net_namespace_ipvs", "", "Duplicate net_namespace_ipvs definition {word} - ignoring"
    ),
    "instance": _outside(
        "instance", "instance name missing - ignoring", "Duplicate instance definition {word} - ignoring"
    ),
    "use_pid_dir": Row(_pid_dir),
    "namespace_with_ipsets": other(),
    "linkbeat_use_polling": other(),
    "child_wait_time": checked(bounded(0, _MOST, "Invalid child_wait_time {word}")),
}


def finish(parser: Parser) -> dict[str, Any]:
    """The field of Config that comes from here."""
    values = dict(globals_of(parser).values)
    origins = globals_of(parser).origins
    defaults = values.pop("defaults", {})
    if defaults.get("interface"):
        values["default_interface"] = defaults["interface"]
    for field, parts in values.pop("fifos", {}).items():
        if "path" in parts:
            values[field] = Fifo(parts["path"], parts.get("script"))
    values["mail"] = Mail(**values.get("mail", {}))
    values["lvs_sync_daemon"] = sync_daemon.chosen(parser, values)
    return {"globals": Global(**values, origins=origins)}
