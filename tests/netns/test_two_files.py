"""The configuration that FULLNAT's operators run: one file for the director, one for each business.

The files are those of docs/examples, with the lab's own real servers and local addresses put in.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.netns import keepalived, labs
from tests.netns.keepalived import until
from xlvs.lab.topology import Method

pytestmark = pytest.mark.root

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "keepalived"
VIPS = ("10.1.252.161", "10.1.252.162", "10.1.252.163")


def test_the_service_is_announced_while_its_quorum_holds(tmp_path: Path) -> None:
    with (
        labs.lab(Method.FULLNAT, local_addresses=28, rules=False) as lab,
        keepalived.daemon(lab, "director", tmp_path) as daemon,
    ):
        lab.run("director", ["ip", "address", "del", f"{VIPS[0]}/32", "dev", "eth0"])
        (tmp_path / "business").mkdir()
        changes = {
            "10.3.1.10": lab.topology.rip(1),
            "10.3.2.10": lab.topology.rip(2),
            "path /health": "path /",
            "delay_loop 7": "delay_loop 1",
            "192.168.22.65-92": "10.2.1.1-28",
        }
        for name in ("keepalived.conf", "business/shop.conf"):
            text = (EXAMPLE / name).read_text()
            for old, new in changes.items():
                text = text.replace(old, new)
            (tmp_path / name).write_text(text)

        def announced() -> list[str]:
            shown = lab.run("director", ["ip", "-4", "-o", "address", "show", "dev", "lo"])
            return [vip for vip in VIPS if f" {vip}/32 " in shown]

        def serves(vip: str) -> bool:
            return "<h1>RS" in lab.run("client", ["curl", "-sSm", "10", f"http://{vip}/"])

        daemon.start()
        until(lambda: announced() == list(VIPS), lambda: daemon.text)
        # alpha: none counts before it has answered, and the first one that does is a quorum.
        ready = {lab.topology.rip(number): 100 for number in (1, 2)}
        until(lambda: daemon.weights() == ready, lambda: daemon.text)
        assert all(serves(vip) for vip in VIPS)
        listed = labs.xlvs(lab, "director", "ipvsadm", "-Ln")
        assert listed.count("synproxy") == len(VIPS), listed
        assert listed.count("FullNat 100") == 2 * len(VIPS), listed
        pools = labs.xlvs(lab, "director", "ipvsadm", "-G", "-n")
        assert all(pools.count(address) >= len(VIPS) for address in ("10.2.1.1 ", "10.2.1.28 ")), pools
        # nginx sees who asks: TOA is FULLNAT's default, behind SYNPROXY too.
        logs = "".join(Path(lab.site(number), "access.log").read_text() for number in (1, 2))
        assert lab.topology.client.addresses[0] in logs

        masters = [int(Path(lab.site(number), "nginx.pid").read_text()) for number in (1, 2)]
        os.kill(masters[0], signal.SIGTERM)
        until(lambda: daemon.weights()[lab.topology.rip(1)] == 0, lambda: daemon.text)
        assert announced() == list(VIPS)
        assert all(serves(VIPS[0]) for _ in range(10))
        os.kill(masters[1], signal.SIGTERM)
        until(lambda: not announced(), lambda: daemon.text)  # quorum_down
