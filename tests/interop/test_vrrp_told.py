"""What scripts and fifos are told, by xlvs and by the real keepalived: the same events, the same words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns.vrrp_nodes import INTERFACE, Node, nodes, until

pytestmark = pytest.mark.root

_EVENTS = ("master", "backup", "fault", "stop")


def configuration(folder: Path, extra: str, third: tuple[str, int]) -> str:
    """Two instances in a group, and a third alone (its name and id); ``extra`` goes into the first."""
    notify = "\n".join(f'notify_{event} "{folder}/told {event} {{name}}"' for event in _EVENTS)
    notify += f'\nnotify "{folder}/told any"'
    blocks = [
        "global_defs {",
        "router_id one",
        "script_user root",
        f"vrrp_notify_fifo {folder}/fifo",
        "}",
        "vrrp_sync_group G1 {",
        "group {\nVI_1\nVI_2\n}",
        notify.format(name="G1"),
        "}",
    ]
    for name, number, more in (("VI_1", 51, extra), ("VI_2", 52, ""), (*third, "notify_deleted")):
        blocks += [
            f"vrrp_instance {name} {{",
            f"interface {INTERFACE}",
            f"virtual_router_id {number}",
            "priority 100",
            "version 3",
            "advert_int 0.2",
            more,
            notify.format(name=name),
            f"virtual_ipaddress {{\n10.9.{number}.1/24\n}}",
            "}",
        ]
    return "\n".join([*blocks, ""])


class Ears:
    """Hears the fifo, and what the scripts were called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755)
        script = folder / "told"
        script.write_text(f'#!/bin/sh\necho "$*" >> {folder}/calls\n')
        script.chmod(0o755)
        os.mkfifo(folder / "fifo", 0o600)
        self._fifo = os.open(folder / "fifo", os.O_RDWR | os.O_NONBLOCK)
        self._text = b""

    def lines(self) -> list[str]:
        try:
            while data := os.read(self._fifo, 4096):
                self._text += data
        except BlockingIOError:
            pass
        return self._text.decode().splitlines()

    def calls(self) -> list[str]:
        """In no order: they run side by side."""
        path = self.folder / "calls"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def until_heard(self, *wanted: str) -> None:
        """Wait until all of these came, after whatever was heard before."""
        heard = len(self._text.splitlines()) if not wanted else 0
        assert not heard
        until(lambda: set(wanted) <= set(self.since()), f"{wanted} is told; it was {self.lines()}")
        self._mark = len(self.lines())

    _mark = 0

    def since(self) -> list[str]:
        return self.lines()[self._mark :]

    def close(self) -> None:
        os.close(self._fifo)


def _states(state: str, third: str = "VI_3") -> tuple[str, ...]:
    return (
        f'INSTANCE "VI_1" {state} 100',
        f'INSTANCE "VI_2" {state} 100',
        f'GROUP "G1" {state} 0',
        f'INSTANCE "{third}" {state} 100',
    )


def story(program: str, node: Node, folder: Path) -> tuple[list[str], list[str]]:
    """The same life for either program; what was told on the way."""
    ears = Ears(folder)
    try:
        node.start(program, configuration(folder, "", ("VI_3", 53)))
        ears.until_heard(*_states("MASTER"))
        node.run("ip", "link", "set", INTERFACE, "down")
        ears.until_heard(*_states("FAULT"))
        node.run("ip", "link", "set", INTERFACE, "up")
        ears.until_heard(*_states("MASTER"))
        # Somebody takes an address away: the master begins anew.
        node.run("ip", "addr", "del", "10.9.53.1/24", "dev", INTERFACE)
        ears.until_heard('INSTANCE "VI_3" BACKUP 100', 'INSTANCE "VI_3" MASTER 100')
        # Other files: one is renamed, and goes on; one goes, another comes. None else notices anything.
        node.reload(configuration(folder, "garp_master_refresh 9", ("VI_4", 53)))
        if program == "xlvs":
            until(lambda: "VI_4" in node.state(), "the file is read")
        else:
            until(lambda: "(VI_4)" in node.said(), "the file is read")
        node.reload(configuration(folder, "", ("VI_4", 54)))
        ears.until_heard('INSTANCE "VI_4" MASTER 100')
        node.stop()
        ears.until_heard(*_states("STOP", "VI_4"))
        # Each event has its own script and the one for any; DELETED has that alone.
        wanted = sum(1 if " DELETED " in line else 2 for line in ears.lines())
        until(lambda: len(ears.calls()) >= wanted, f"{wanted} scripts have run, not {ears.calls()}", 20)
        return ears.lines(), ears.calls()
    finally:
        ears.close()


def test_the_same_words(tmp_path: Path) -> None:
    told = {}
    with nodes("wi-told", tmp_path, count=1) as (node,):
        for program in ("keepalived", "xlvs"):
            told[program] = story(program, node, tmp_path / program)
    real, ours = (list(map(_by_name, told[program][0])) for program in ("keepalived", "xlvs"))
    for name in ("VI_1", "VI_2", "VI_3", "VI_4", "G1"):
        assert [one for key, one in ours if key == name] == [one for key, one in real if key == name]
    assert told["xlvs"][1] == told["keepalived"][1]


def _by_name(line: str) -> tuple[str, str]:
    return line.split('"')[1], line
