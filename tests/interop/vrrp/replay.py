"""Our machines in the same dialogues, in a time that is simulated, and how they differ from a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from tests.interop.vrrp.dialogues import END, NODE, NODE6, Dialogue, Tell, Write, advert, group_address
from tests.interop.vrrp.record import files_of, spoilt, spoilt_datagram
from xlvs.vrrp.commands import Announce, Command, Notify, Send
from xlvs.vrrp.packet import PacketError, Received, message, parse4, parse6
from xlvs.vrrp.router import Router
from xlvs.vrrp.settings import TrackKind

Line = list[object]
LATENESS = 0.45  # seconds by which the recorded process was late at most: the machine was shared


def packet_of(dialogue: Dialogue, tell: Tell) -> Received | None:
    group = group_address(dialogue.instances[tell.instance])
    made = advert(dialogue, tell)
    try:
        if isinstance(tell.source, IPv6Address):
            assert isinstance(group, IPv6Address)
            inner = spoilt(tell, message(made, tell.source, group))
            return parse6(inner, tell.source, group, tell.ttl)
        assert isinstance(group, IPv4Address)
        return parse4(spoilt_datagram(tell, made, tell.source, group))
    except PacketError:
        return None


def replay(dialogue: Dialogue) -> dict[str, list[Line]]:
    """What our machines do: the same lists as the recording's."""
    made: dict[str, list[Line]] = {"sent": [], "announced": [], "notified": []}

    def run(commands: list[Command], now: float) -> None:
        for command in commands:
            if isinstance(command, Send):
                line: Line = [now, command.instance, command.advert.priority]
                made["sent"].append([*line, command.advert.sequence if command.advert.auth == "AH" else 0])
            elif isinstance(command, Announce):
                made["announced"].append([now, command.instance, command.repeat])
            elif isinstance(command, Notify):
                made["notified"].append([now, command.name, command.event.value, command.priority])

    router = Router(dialogue.instances, [dialogue.group] if dialogue.group else [])
    for settings in dialogue.instances:
        source = NODE if settings.family == 4 else NODE6
        router.set_addresses(settings.name, source, frozenset((source,)))
    for file in files_of(dialogue):
        router.report(TrackKind.FILE, file, 0, 0.0)
    run(router.start(0.0), 0.0)
    for event in sorted(dialogue.events, key=lambda event: event.at):
        _wait(router, event.at, run)
        if isinstance(event, Write):
            run(router.report(TrackKind.FILE, event.file, event.value, event.at), event.at)
        else:
            packet = packet_of(dialogue, event)
            if packet is not None:
                name = dialogue.instances[event.instance].name
                run(router.receive(name, packet, event.at), event.at)
    _wait(router, END, run)
    run(router.stop(END), END)
    return made


def _wait(router: Router, until: float, run: Callable[[list[Command], float], None]) -> None:
    # What is due at the same moment comes second: a real process is never early.
    while (deadline := router.deadline) is not None and deadline < until:
        run(router.tick(deadline), deadline)


def difference(recorded: Sequence[Line], ours: Sequence[Line], repeated: bool = False) -> str | None:
    """None where both did the same at the same time, as far as a late process can tell.

    ``repeated``: of adverts one more or less is lateness too, for each is measured from the last.
    """
    for name in sorted({str(line[1]) for line in (*recorded, *ours)}):
        real = [line for line in recorded if line[1] == name]
        mine = [line for line in ours if line[1] == name]
        found = _of_repeated(real, mine) if repeated else _of_lines(real, mine)
        if found is not None:
            return found
    return None


def _time(line: Line) -> float:
    return float(str(line[0]))


def _of_lines(real: Sequence[Line], mine: Sequence[Line]) -> str | None:
    for theirs, our in zip(real, mine, strict=False):
        if theirs[1:] != our[1:] or abs(_time(theirs) - _time(our)) > LATENESS:
            return f"keepalived: {theirs}, ours: {our}"
    if len(real) != len(mine):
        longer, whose = (real, "keepalived") if len(real) > len(mine) else (mine, "ours")
        return f"only {whose}: {longer[min(len(real), len(mine))]}"
    return None


def _of_repeated(real: Sequence[Line], mine: Sequence[Line]) -> str | None:
    left = list(mine)
    alone = []
    for line in real:
        like = [our for our in left if our[2] == line[2] and abs(_time(our) - _time(line)) <= LATENESS]
        near = min(like, key=lambda our: abs(_time(our) - _time(line)), default=None)
        if near is None or abs(int(str(near[3])) - int(str(line[3]))) > 2:
            alone.append(line)
        else:
            left.remove(near)
    if len(alone) > 1 or len(left) > 1:
        return f"only keepalived sent: {alone}, only ours: {left}"
    return None
