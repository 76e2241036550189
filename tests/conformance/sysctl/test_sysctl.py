"""Names, defaults and refusals of IPVS's sysctls are those of Debian's kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.sysctl.record import ANSWERS, ask
from xlvs.dataplane import sysctls
from xlvs.errors import IpvsError

RECORDED: dict[str, Any] = json.loads(ANSWERS.read_text())
HZ = 250  # of Debian's kernels
REPOSITORY = Path(__file__).resolve().parents[3]
# The kernel keeps it in a word, xlvs in 32 bits: what is above them is refused here.
WIDER = ("sync_qlen_max",)


def test_names_and_defaults() -> None:
    ours = {name: list(value) for name, value in sysctls.defaults(RECORDED["zones"]).items()}
    assert {name: ours[name] for name in sysctls.KERNELS} == RECORDED["defaults"]


@pytest.mark.parametrize("name", sorted(RECORDED["answers"]))
def test_values_taken_and_refused(name: str) -> None:
    default = tuple(RECORDED["defaults"][name])
    for text, real in zip(RECORDED["texts"], RECORDED["answers"][name], strict=True):
        try:
            ours: list[int] | None = list(sysctls.parse(name, text, default, HZ))
        except IpvsError:
            ours = None
        if name in ("drop_entry", "drop_packet", "secure_tcp") and ours == [2]:
            ours = [1]  # automatic: on only while memory is short (test_defence.py)
        if name in WIDER and real and real[0] > 2**31 - 1:
            real = None
        assert ours == real, f"{name} = {text!r}"


@pytest.mark.guest
@pytest.mark.root
def test_the_kernel_still_says_so_and_the_kernel_engine_shows_it() -> None:
    xlvs = f"{REPOSITORY}/.venv/bin/xlvs sysctl --engine kernel"
    live, said = ask(
        f"{xlvs} net.ipv4.vs.drop_entry=3 sync_threshold='4 60' || exit 1\n"
        f"{xlvs} am_droprate=7 sync_version=7 2>&1 && exit 1\n{xlvs} --json\ntrue"
    )
    assert {**live, "zones": ""} == {**RECORDED, "zones": ""}
    written, _, rest = said.partition("xlvs: ")
    assert written == "net.ipv4.vs.drop_entry = 3\nnet.ipv4.vs.sync_threshold = 4\t60\n"
    refusal, _, document = rest.partition("\n")
    assert refusal == "net.ipv4.vs.sync_version does not take '7'; nothing was changed"
    values = {name: each["value"] for name, each in json.loads(document).items()}
    expected = {name: each[0] if len(each) == 1 else each for name, each in RECORDED["defaults"].items()}
    assert values == {**expected, "drop_entry": 3, "sync_threshold": [4, 60]}
