"""keepalived's command line: its options in all their spellings, PID files, logs, and the unit files."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlvs.cli import keepalived as command
from xlvs.daemon.keepalived import commandline, listing, logs, pidfile, startup
from xlvs.errors import XlvsError
from xlvs.keepalived.config import Config, Global

REPOSITORY = Path(__file__).resolve().parents[2]


def chosen(*words: str) -> dict[str, object]:
    return vars(commandline.parser("").parse_args(words))


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)
    logging.getLogger("xlvs").setLevel(logging.NOTSET)


def test_options_as_keepalived_has_them() -> None:
    found = chosen("-nlD", "-f/etc/k.conf", "-p", "a", "-r", "b", "--checkers_pid=c", "-b", "d", "-i", "id")
    assert (found["dont_fork"], found["log_console"], found["log_detail"]) == (True, True, True)
    assert (found["use_file"], found["pid"], found["vrrp_pid"]) == ("/etc/k.conf", "a", "b")
    assert (found["checkers_pid"], found["bfd_pid"], found["config_id"]) == ("c", "d", "id")
    assert chosen("-t")["config_test"] == ""
    assert chosen("-t/tmp/log")["config_test"] == "/tmp/log"
    assert chosen("-u", "022")["umask"] == 0o22
    assert chosen("-M")["core_dump_pattern"] == "core"
    for words in (["--bogus"], ["positional"], ["-u", "x"], ["-u", "01000"]):
        with pytest.raises(SystemExit):
            chosen(*words)


def test_signals_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    # What `keepalived --signum` of Debian 12 prints.
    numbers = {"STOP": 15, "RELOAD": 1, "DATA": 10, "STATS": 12, "STATS_CLEAR": 63, "JSON": 36}
    for name, number in numbers.items():
        assert command.main([f"--signum={name}"]) == 0
        assert capsys.readouterr().out == f"{number}\n"
    with pytest.raises(XlvsError, match="Unknown sigfunc FOO"):
        command.main(["--signum=FOO"])


def test_pid_files_are_where_keepalived_has_them() -> None:
    # As files of Debian's keepalived 2.2.7 were found; its manual has other names.
    folder = "/run/keepalived"
    for arguments, parent, child in (
        ((), "/run/keepalived.pid", "/run/checkers.pid"),
        ((True,), f"{folder}/keepalived.pid", f"{folder}/checkers.pid"),
        ((False, "two"), f"{folder}/keepalived_two.pid", f"{folder}/checkers_two.pid"),
        ((False, None, "blue"), f"{folder}/blue/keepalived.pid", f"{folder}/blue/checkers.pid"),
        ((True, "two", "blue"), f"{folder}/blue/keepalived_two.pid", f"{folder}/blue/checkers_two.pid"),
    ):
        assert pidfile.default("", *arguments) == parent
        assert pidfile.default("checkers", *arguments) == child
    options = commandline.parser("").parse_args(["-p", "/x/y.pid"])
    paths = startup.pid_paths(options, Config(Global(instance="two")))
    assert paths[""] == "/x/y.pid"
    assert paths["bfd"] == "/run/keepalived/bfd_two.pid"


def test_a_missing_include_ends_it_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], logging_as_it_was: None
) -> None:
    # The statuses are those of keepalived 2.2.7, with -t and without.
    (tmp_path / "k").write_text("include nothing/*.conf\n")
    (tmp_path / "a").write_text("includea nothing/*.conf\n")
    test = ["-t", "-f"]
    for words, status in (
        ([*test, "k"], 0),
        (["-e", *test, "k"], 6),
        ([*test, "a"], 6),
        ([*test, "none"], 0),
        (["-e", *test, "none"], 4),
        (["-nlf", "a"], 6),
        (["-enlf", "k"], 6),
        (["-nlf", "none"], 6),
    ):
        *options, name = words
        assert command.main([*options, str(tmp_path / name)]) == status, words
    assert "No config files matched 'nothing/*.conf'." in capsys.readouterr().err


def test_a_child_gets_the_same_options() -> None:
    options = commandline.parser("").parse_args(["-nl", "-f", "k.conf"])
    words = startup.child_command(options, ["-nl", "-f", "k.conf"], "vrrp", 7)
    child = commandline.parser("").parse_args(words[words.index("keepalived") + 1 :])
    assert (child.child, child.log_console, Path(child.use_file).is_absolute()) == ("vrrp:7", True, True)


def test_only_some_children() -> None:
    for words, expected in (
        ([], {"vrrp", "checkers", "bfd"}),
        (["-P"], {"vrrp", "bfd"}),
        (["-C", "-B"], {"checkers"}),
        (["-P", "-C"], {"vrrp", "checkers", "bfd"}),
    ):
        assert set(startup._children(commandline.parser("").parse_args(words))) == expected


def test_log_files_are_one_a_process(tmp_path: Path, logging_as_it_was: None) -> None:
    for process in ("", "vrrp", "checkers", "bfd"):
        logs.set_up(logs.Logs(file=str(tmp_path / "k.log"), no_syslog=True), process)
        logging.getLogger("xlvs.any").info("from %s \udcff", process)
        for handler in logging.getLogger().handlers:
            handler.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "k.log",
        "k_bfd.log",
        "k_healthcheckers.log",
        "k_vrrp.log",
    ]
    assert (tmp_path / "k_vrrp.log").read_text().endswith(": from vrrp \\xff\n")
    assert logs.facility("3") == "local3"
    with pytest.raises(XlvsError):
        logs.facility("9")


def test_requests_and_what_is_printed_of_answers() -> None:
    request, options = commandline.request_of("drain", ["10.0.0.1:80", "--virtual", "G", "--json"])
    assert request == {"command": "drain", "server": "10.0.0.1:80", "virtual": "G"}
    assert options.json
    assert commandline.request_of("force", ["V1", "backup"])[0] == {
        "command": "force",
        "instance": "V1",
        "state": "backup",
    }
    answer = {"sessions": [{"name": "b1", "state": "UP", "nested": {"a": 1}, "words": ["x", "y"]}], "n": 1}
    assert list(listing.lines("sessions", answer)) == [
        "sessions b1:",
        "  state: UP",
        "  nested:",
        "    a: 1",
        "  words: x y",
        "n: 1",
    ]


def test_without_a_daemon_there_is_nobody_to_ask(tmp_path: Path) -> None:
    from xlvs.daemon.keepalived import control

    with pytest.raises(XlvsError, match="does not run"):
        control.ask(str(tmp_path / "nothing"), {"command": "status"})


def test_the_unit_starts_what_there_is() -> None:
    text = (REPOSITORY / "systemd/xlvs-keepalived.service").read_text()
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    words = shlex.split(lines["ExecStart"].replace("$DAEMON_ARGS", "-D"))
    assert words[:3] == ["/usr/bin/env", "xlvs", "keepalived"]
    assert chosen(*words[3:])["dont_fork"]
    assert lines["ExecReload"].split()[-1] in commandline.COMMANDS
    assert lines["Type"] == "notify"
