"""Whatever is typed, ipvsadm answers with a status and words, never with a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ipvsadm_console import Console, NoNames
from xlvs.dataplane.memory import MemoryDataPlane
from xlvs.ipvsadm.numbers import leading_number, to_endpoint, to_number
from xlvs.ipvsadm.options import COMMANDS, DIALECT_COMMANDS, DIALECT_OPTIONS, OPTIONS
from xlvs.ipvsadm.stream import command_lines

EVERY = [*COMMANDS, *DIALECT_COMMANDS, *OPTIONS, *(one for more in DIALECT_OPTIONS.values() for one in more)]
WORDS = [f"--{option.long}" for option in EVERY] + [f"-{option.short}" for option in EVERY if option.short]
VALUES = [
    *("10.0.0.1:80", "10.0.0.2", "[2001:db8::1]:80", "2001:db8::1", "[", "[]:", "[::1]:99999", ":", "::"),
    *("1", "0", "-1", "65536", "99999999999999999999999", "x", "", "rr", "wlc", "sh", "master", "backup"),
    *(
        "255.255.255.0",
        "gue",
        "gre",
        "ipip",
        "sh-port",
        "enable",
        "toa",
        "10.1.0.1-10.1.0.28,2001:db8::/124",
        "10.1.0.0/24",
        "flag-1,,flag-2",
        ",",
        "--",
        "-",
        "=",
        "\0",
        "\udcff",
    ),
]
# Mostly words that mean something, so that the search gets past the first check; some of anything.
WORD = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(VALUES),
    st.builds("{}={}".format, st.sampled_from(WORDS), st.sampled_from(VALUES)),
    st.builds("{}{}".format, st.sampled_from(WORDS), st.sampled_from(VALUES)),
    st.text(max_size=20),
)
FIRST = COMMANDS + DIALECT_COMMANDS
COMMAND = st.sampled_from([word for option in FIRST for word in (f"--{option.long}", f"-{option.short}")])
LINE = st.one_of(
    st.lists(WORD, max_size=8),
    st.builds(lambda command, rest: [command, *rest], COMMAND, st.lists(WORD, max_size=10)),
)


@given(st.lists(LINE, max_size=4))
def test_any_arguments_get_an_answer(lines: list[list[str]]) -> None:
    console = Console(MemoryDataPlane())
    console.run("-A -t 10.0.0.1:80 -s rr")
    console.run("-a -t 10.0.0.1:80 -r 10.0.0.2 -m")
    for words in lines:
        status = console.run_words(words, stdin="-A -u 10.0.0.1:53\n")
        assert status in (0, 1, 2, 255)
        # A refusal always says why, and says it on stderr; success says nothing there but a warning.
        said = "" if console.err.startswith("xlvs: ") and not status else console.err
        assert bool(said) == bool(status) or "-R" in words or "--restore" in words


@given(st.text(alphabet=st.sampled_from("-AaRLtrs 10.:#\t\r\n\0x"), max_size=200), st.booleans())
def test_any_input_can_be_restored_or_refused(text: str, atomic: bool) -> None:
    console = Console()
    assert console.run_words(["-R", "--atomic"] if atomic else ["-R"], stdin=text) in (0, 1, 2, 255)


@given(st.text(alphabet=st.sampled_from("[]:.%0123456789abcdefxz "), max_size=30))
def test_an_endpoint_is_an_address_or_nothing(text: str) -> None:
    endpoint = to_endpoint(text, 6, NoNames())
    if endpoint is not None:
        family, address, port = endpoint
        assert len(address) == {2: 4, 10: 16}[family]
        assert port is None or 0 <= port <= 65535


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        (" \t\n+7", 7),
        ("-0", 0),
        ("0" * 5000 + "9", 9),
        ("1" * 5000, None),
        ("-7", None),
        ("--7", None),
        ("7 ", None),
        ("0x7", None),
        ("\u0667", None),
        ("", None),
        ("+", None),
    ],
)
def test_numbers_are_read_as_strtol_does(text: str, number: int | None) -> None:
    assert to_number(text, 0, 65535) == number


@pytest.mark.parametrize(("text", "number"), [("64x", 64), (" -3", -3), ("x", 0), ("", 0), ("+", 0)])
def test_leading_numbers_are_read_as_atoi_does(text: str, number: int) -> None:
    assert leading_number(text) == number


def test_lines_have_no_quotes_and_no_remarks() -> None:
    text = "\nipvsadm -A 'x y' # z\n\r\n \t-C\r\nlost  "
    assert list(command_lines(text)) == [(2, ["-A", "'x", "y'", "#", "z"]), (4, ["-C"])]


def test_words_of_lines_end_after_4096_bytes() -> None:
    text = f"-A {'y' * 4097} {'z' * 4096}ipvsadm\n-A {'é' * 2049}\n"
    assert list(command_lines(text)) == [
        (1, ["-A", "y" * 4096, "y", "z" * 4096]),
        (2, ["-A", "é" * 2048, "é"]),
    ]


def test_starting_up_imports_nothing_heavy() -> None:
    script = "import sys, xlvs.cli.main, xlvs.cli.ipvsadm; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    heavy = {"argparse", "ipaddress", "numpy", "pyroute2", "json", "asyncio", "subprocess", "ctypes"}
    # What the interpreter itself loads (a .pth file of the environment, say) is not ours.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout
    assert not heavy & (set(loaded.split()) - set(bare.split()))
