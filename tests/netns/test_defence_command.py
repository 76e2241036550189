"""``xlvs defence``: limits and lists in the pinned maps, kept, killed, and gone with their service."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.alone import Alone
from tests.netns.killing import killed_before

pytestmark = pytest.mark.root
DIRECTOR = Alone("xlvs-defence")
WEB = ("-t", "10.1.252.161:80")
MANY = 100_000


@pytest.fixture(autouse=True)
def _director() -> Iterator[None]:
    with DIRECTOR.made():
        for service in ("-t 10.1.252.161:80", "-u [fd80::1]:53", "-f 7"):
            DIRECTOR.xlvs("ipvsadm", "-A", *service.split(), "-s", "rr")
        yield


def defence(*words: str, text: str = "") -> str:
    return DIRECTOR.xlvs("defence", *words, text=text).stdout


def refused(*words: str, text: str = "") -> str:
    """What a command says that is refused."""
    done: subprocess.CompletedProcess[str] = DIRECTOR.xlvs("defence", *words, check=False, text=text)
    assert done.returncode in (1, 2), done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(defence("list", "--json"))["services"]
    return found


def test_limits_and_lists_are_kept_listed_and_restored() -> None:
    assert (defence("list"), defence("export"), listed()) == ("", "", [])
    defence("limit", *WEB, "--new", "2000", "--per-source", "20")
    defence("deny", *WEB, "203.0.113.0/24", "198.51.100.9")
    defence("allow", *WEB, "203.0.113.7")
    defence("check", *WEB, "every-packet")
    defence("allow", "-u", "[fd80::1]:53", "fd18::/64")
    defence("deny", "-f", "7", "10.0.0.0/8")
    text = (
        "service -t 10.1.252.161:80\nnew 2000\nper-source 20\nevery-packet\n"
        "deny 198.51.100.9/32\ndeny 203.0.113.0/24\nallow 203.0.113.7/32\n"
        "service -u [fd80::1]:53\nallow fd18::/64\n"
        "service -f 7\ndeny 10.0.0.0/8\n"
    )
    assert defence("export") == text
    assert defence("list") == (
        "-t 10.1.252.161:80\n"
        "  new connections a second of all clients: 2000, 0 refused\n"
        "  new connections a second of one client: 20, 0 refused\n"
        "  clients are looked up for every packet\n"
        "             packets  prefix\n"
        "  deny             0  198.51.100.9/32\n"
        "  deny             0  203.0.113.0/24\n"
        "  allow            0  203.0.113.7/32\n"
        "-u [fd80::1]:53\n"
        "  clients are looked up for new connections\n"
        "             packets  prefix\n"
        "  allow            0  fd18::/64\n"
        "  deny             0  all others\n"
        "-f 7\n"
        "  clients are looked up for new connections\n"
        "             packets  prefix\n"
        "  deny             0  10.0.0.0/8\n"
    )
    assert listed()[1]["others"] == {"verdict": "deny", "packets": 0}
    # They outlive the programs, and ipvsadm's changes of the service; -D and -C take them along.
    DIRECTOR.xlvs("up", "eth0", "--no-helper")
    DIRECTOR.xlvs("down", "--keep-rules")
    DIRECTOR.xlvs("ipvsadm", "-E", *WEB, "-s", "wlc")
    assert defence("export") == text
    saved = DIRECTOR.xlvs("ipvsadm", "-Sn").stdout
    DIRECTOR.xlvs("ipvsadm", "-D", "-f", "7")
    assert "-f 7" not in defence("export")
    DIRECTOR.xlvs("ipvsadm", "-C")
    assert defence("export") == ""
    DIRECTOR.xlvs("ipvsadm", "-R", text=saved)
    assert defence("export") == ""
    defence("import", "-", text=text)
    assert defence("export") == text
    # A file says all of the services in it, and nothing of others.
    defence("import", "-", text="service -t 10.1.252.161:80\nnew 5\n")
    kept = text[text.index("service -u") :]
    assert defence("export") == f"service -t 10.1.252.161:80\nnew 5\n{kept}"
    defence("remove", "-f", "7", "10.0.0.0/8")
    defence("limit", *WEB, "--new", "0")
    defence("flush", "-u", "[fd80::1]:53")
    assert defence("export") == ""
    defence("import", "-", text=text)
    defence("flush")
    assert listed() == []


def test_mistakes_change_nothing_and_say_what_is_wrong() -> None:
    defence("deny", *WEB, "203.0.113.0/24")
    for words, said in (
        (("limit", *WEB), "--new, --per-source or both"),
        (("limit", *WEB, "--new", "many"), "'many' is no number of connections"),
        (("limit", *WEB, "--new", "5", "--per-source", "-1"), "expected one argument"),
        (("limit", "-t", "10.1.252.161:81", "--new", "5"), "there is no service -t 10.1.252.161:81"),
        (("limit", "-t", "10.1.252.161:x", "--new", "5"), "is no address and port of a service"),
        (("limit", "--new", "5"), "one of the arguments -t/--tcp-service"),
        (("limit", *WEB, "-6", "--new", "5"), "-6 is for services by mark"),
        (("deny", *WEB, "10.0.0.1", "10.0.0.1/8"), "10.0.0.0/8 is the prefix, 10.0.0.1 an address"),
        (("deny", *WEB, "fd80::1"), "of the other family than the service"),
        (("deny", *WEB), "PREFIX"),
        (("remove", *WEB, "203.0.113.0/24", "10.0.0.1"), "10.0.0.1/32 is in no list of -t 10.1.252.161:80"),
        (("check", *WEB, "sometimes"), "invalid choice"),
        (("flush", "-f", "9"), "there is no service -f 9"),
        (("import", "/nowhere"), "cannot read /nowhere"),
    ):
        assert said in refused(*words), words
    web = "service -t 10.1.252.161:80\nnew 5\n"
    wrong = refused("import", "-", text=f"{web}service -u 10.0.0.1:53\ndeny 10.0.0.1\n")
    assert wrong == "xlvs: standard input, line 3: there is no service -u 10.0.0.1:53\n"
    assert "standard input, line 3: 'refuse' is none of" in refused(
        "import", "-", text=f"{web}refuse 10.0.0.1"
    )


def test_an_import_that_is_killed_is_finished_by_the_next_command() -> None:
    DIRECTOR.xlvs("defence", "deny", *WEB, "10.1.0.0/16", "10.2.0.0/16")
    steps = 0
    for step in range(30):
        text = (
            f"service -t 10.1.252.161:80\nnew {step + 1}\nevery-packet\ndeny 10.{step}.0.0/16 10.1.0.0/16\n"
        )
        done = DIRECTOR.run(*killed_before(step, "defence", "import", "-"), check=False, text=text)
        prefixes = {entry["prefix"] for entry in listed()[0]["clients"]}
        assert prefixes == {f"10.{step}.0.0/16", "10.1.0.0/16"}
        assert listed()[0]["new"] == step + 1
        if done.returncode == 0:
            break
        assert done.returncode in (-9, 137), done.stderr
        steps += 1
    assert steps > 4
    DIRECTOR.xlvs("ipvsadm", "-C")
    assert listed() == []


def processor_time() -> float:
    """Seconds that our children took: how busy the machine is does not matter."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_hundred_thousand_prefixes_are_there_in_seconds() -> None:
    """Loaded, replaced by another hundred thousand of which half are the same, and flushed."""

    def text(first: int) -> str:
        numbers = range(first, first + MANY)
        return "service -t 10.1.252.161:80\n" + "".join(
            f"deny 11.{number >> 16}.{number >> 8 & 255}.{number & 255}\n" for number in numbers
        )

    for first in (0, MANY // 2):
        began = processor_time()
        defence("import", "-", text=text(first))
        assert processor_time() - began < 20
        lines = defence("export").splitlines()
        assert len(lines) == MANY + 1
        last = first + MANY - 1
        assert f"deny 11.{last >> 16}.{last >> 8 & 255}.{last & 255}/32" == lines[-1]
    defence("deny", *WEB, "10.0.0.1")
    assert defence("export").count("\n") == MANY + 2
    DIRECTOR.xlvs("ipvsadm", "-D", *WEB)
    assert defence("export") == ""
