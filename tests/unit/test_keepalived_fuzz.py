"""The whole parser against text that nobody would write: it always comes back, soon, and says why.

``python -m tests.unit.test_keepalived_fuzz SECONDS [SEED]`` goes on for as long as one likes.
"""

from __future__ import annotations

import gc
import pickle
import random
import resource
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.keepalived.carried import carry_out
from tests.conformance.keepalived.services import corpus
from tests.conformance.keepalived.vrrp import corpus as vrrp
from xlvs.keepalived.config import Outcome
from xlvs.keepalived.explain import explain
from xlvs.keepalived.files import Memory
from xlvs.keepalived.parse import parse

FILE = "/etc/keepalived/keepalived.conf"
OTHER = "real_server 10.9.9.9 80 {\nTCP_CHECK {\n}\n}\n"
SEEDS = [corpus.text(*case) for case in corpus.cases()]
SEEDS += [vrrp.text(*case) for case in vrrp.cases()]
VRRP = """global_defs {
    notification_email {
        a@b.c
    }
    script_user root
    vrrp_version 3
}
$VIP=10.0.0.${N}
vrrp_script check {
    script "/bin/check a 'b c'"
    interval 2
    weight -20
}
track_file file {
    file /tmp/file
}
bfd_instance peer {
    neighbor_ip 10.0.0.2
}
vrrp_sync_group both {
    group {
        one
    }
}
vrrp_instance one {
    state MASTER
    interface eth0
    virtual_router_id 7
    priority 150
    advert_int 0.5
    authentication {
        auth_type PASS
        auth_pass secret
    }
    $N=9
    virtual_ipaddress {
        $VIP dev eth0 label eth0:1
        ~SEQ(A, 1, 5) 10.1.0.${A}/24
        ~LST(B, 1, 2) 2001:db8::${B}/64
    }
    virtual_routes {
        default via 10.0.0.254
        10.2.0.0/16 via 10.0.0.1 dev eth0 metric 5
    }
    track_script {
        check weight 5
    }
    notify "/bin/notify" root
    @one preempt_delay 5
    @^one nopreempt
    include other.conf
}
"""
SEEDS += [VRRP] * 100
WORDS = (
    [word for text in (*SEEDS[::7], VRRP) for word in text.split()]
    + ["{", "}", '"', "'", "\\", "\\x41", "$", "${A}", "$A", "$A=1", "$A= \\", "~SEQ(A,1,9)", "~SEQ(A,1,0,9)"]
    + [
        "~LST(A,1,2)",
        "~SEQx(A,1,99999999)",
        "@one",
        "@^one",
        "@",
        "include other.conf",
        "include *",
        "!",
        "#",
    ]
    + ["9" * 400, "-1", "0", "65536", "1e9", "0x10", "\0", "\x80", "\u0663", "\udcff", "::", "::ffff:1.2.3.4"]
    + [
        "10.0.0.0/0",
        "::/1",
        "0.0.0.0-255.255.255.255",
        "::-ffff",
        "a" * 5000,
        "${_RANDOM 1 5}",
        "${_PWD}",
        "%s{0}",
    ]
)
PATIENCE = 10.0  # seconds for one text, on a machine that does much else


def mutated(chance: random.Random) -> str:
    """A seed with some of its lines, words and letters changed."""
    lines = chance.choice(SEEDS).split("\n")
    if chance.random() < 0.3:
        lines += chance.choice(SEEDS).split("\n")
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(lines))
        kind = chance.randrange(8)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif kind == 2:
            lines[at] = f"{lines[at]} {chance.choice(WORDS)}"
        elif kind == 3:
            lines[at] = f"{chance.choice(WORDS)} {lines[at]}"
        elif kind == 4:
            words = lines[at].split() or [""]
            words[chance.randrange(len(words))] = chance.choice(WORDS)
            lines[at] = " ".join(words)
        elif kind == 5 and lines[at]:
            place = chance.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + chr(
                chance.choice((0, 10, 34, 35, 36, 39, 92, 123, 125, 126, 255))
            )
        elif kind == 6:
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = chance.choice(WORDS)
        lines = lines or [""]
    return "\n".join(lines)


def read(text: str) -> Outcome:
    """A text as the main file, beside the one that it may include."""
    return parse(FILE, Memory({FILE: text, "/etc/keepalived/other.conf": OTHER}), "one")


def judge(text: str) -> Outcome:
    """Read a text; whatever it is, the outcome is whole, can be printed, sent on, and used."""
    begin = time.monotonic()
    outcome = read(text)
    assert (outcome.config is None) == any(message.fatal for message in outcome.messages)
    assert outcome.status in (0, 2, 5, 6)
    assert outcome.status == 0 or outcome.messages
    assert outcome.config is not None or outcome.status == 2
    if outcome.config is not None:
        assert pickle.loads(pickle.dumps(outcome.config)) == outcome.config  # noqa: S301  our own bytes
        if sum(len(service.vips) for service in outcome.config.virtual_servers) < 5000:
            assert all(isinstance(line, str) for line in explain(outcome.config))
        carry_out(outcome.config)
    for message in outcome.messages:
        str(message)
    assert time.monotonic() - begin < PATIENCE, text
    return outcome


FOUND = (  # by this fuzzer
    "track_file a {\nfile 'b\n}",
    "virtual_server 10.0.0.1 80 {\nquorum_up 'b\n}",
    "vrrp_instance a {\nauthentication {\nauth_pass 'b\n}\n}",
    "track_process a {\nprocess 'b\n}",
    'bfd_instance a {\nneighbor_ip "{x"\nsource_ip "{0}"\nmin_rx "{"\n}',
    'track_process "{a" {\ndelay "{b"\n}',
)


@pytest.mark.parametrize("text", FOUND)
def test_what_was_found(text: str) -> None:
    assert judge(text).status


@pytest.mark.parametrize("seed", range(8))
def test_mutated_configurations(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        judge(mutated(chance))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=400))
def test_any_text(text: str) -> None:
    judge(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*WORDS, "\n", "\n", "{\n", "}\n"]), max_size=60))
def test_any_words(words: list[str]) -> None:
    judge(" ".join(words))


def test_what_is_read_twice_is_the_same() -> None:
    chance = random.Random(99)
    for _ in range(100):
        text = mutated(chance)
        if "RANDOM" not in text:
            assert judge(text) == judge(text)


def main(seconds: float, seed: int) -> None:
    """Mutate and read for so many seconds; prints how many, and how large the process became.

    Each tenth outcome is looked at as well.
    """
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    count, slowest = 0, (0.0, "")
    while time.monotonic() < end:
        text = mutated(chance)
        begin = time.monotonic()
        try:
            (read if count % 10 else judge)(text)
        except Exception:
            print(repr(text))
            raise
        slowest = max(slowest, (time.monotonic() - begin, text))
        count += 1
        if count % 20_000 == 0:
            gc.collect()
            size = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
            print(f"{count} texts, {size} MiB, slowest {slowest[0]:.3f} s", flush=True)
    print(f"{count} texts; slowest {slowest[0]:.3f} s: {slowest[1]!r}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
