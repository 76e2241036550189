"""Every option that the help of Debian's keepalived names is one of ours, and takes what it takes."""

from __future__ import annotations

import re
import subprocess

from xlvs.daemon.keepalived import commandline

_OPTION = re.compile(r"^ +(?:(-\w), +)?--([\w-]+)(=|\[=| id)?", re.MULTILINE)
_VALUES = {"umask": "022", "signum": "STOP"}
_NOT_THE_DAEMON_S = {"genhash", "help"}


def test_options_of_the_real_one_s_help() -> None:
    text = subprocess.run(["keepalived", "--help"], check=True, capture_output=True, text=True)
    found = [
        match for match in _OPTION.findall(text.stdout + text.stderr) if match[1] not in _NOT_THE_DAEMON_S
    ]
    assert len(found) > 30
    for short, name, takes in found:
        value = _VALUES.get(name, "value")
        for words in ([f"--{name}={value}" if takes else f"--{name}"], [short, value] if takes else [short]):
            if takes == "[=":
                words = ["".join(words)]
            if not words[0]:
                continue
            chosen = vars(commandline.parser("").parse_args(words))
            assert chosen[name.replace("-", "_")], words
