"""Ask Debian's kernel what its IPVS's sysctls begin with and what they take, and write it down.

python -m tests.conformance.sysctl.record
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.guest import run_in_guest

ANSWERS = Path(__file__).resolve().parent / "answers.json"
TEXTS = (
    *("-1", "0", "1", "2", "3", "4", "255", "256", "65536", "2147483647", "-2147483648", "-2147483649"),
    *("2147483648", "4294967296", "99999999999999999999999", "8589934", "8589935", "-8589934", "-8589935"),
    *("abc", "1 2", "3 50", "3,50", "", "   ", "5x", "+3", "0x10", "0X1f", "0x", "010", "09", " 7 ", "7 8 9"),
    *("0 0", "0 1", "50 3", "1 -1", "-1 5", "255 256", "3 1", "3 0", "4 abc", "2\t9", "1 2x", "1x 2"),
)
# Every value is tried on the default; bash starts no program for any of it.
SCRIPT = r"""
modprobe -a ip_vs ip_vs_lblc ip_vs_lblcr
cd /proc/sys/net/ipv4/vs
while IFS= read -r text; do printf -v text %b "$text"; texts+=("$text"); done <<< "$TEXTS"
for name in *; do
  IFS= read -r default < $name
  printf '%s\tdefault\t\t%s\n' "$name" "$default"
  for number in "${!texts[@]}"; do
    if { printf '%s\n' "${texts[number]}" > $name; } 2> /dev/null; then said=taken; else said=refused; fi
    IFS= read -r value < $name
    printf '%s\t%s\t%s\t%s\n' "$name" "$number" "$said" "$value"
    printf '%s\n' "$default" > $name
  done
done
echo zones
while IFS= read -r line; do
  [[ $line =~ ^(Node|\ +(high|managed)\ ) ]] && printf '%s\n' "$line"
done < /proc/zoneinfo
"""


def ask(epilogue: str = "") -> tuple[dict[str, Any], str]:
    """What the guest's kernel said, and what the epilogue printed after it."""
    texts = "\n".join(text.replace("\t", "\\t") for text in TEXTS)
    done = run_in_guest(f"TEXTS='{texts}'\n{SCRIPT}\necho epilogue\n{epilogue}")
    if done.status:
        raise RuntimeError(f"the guest's script ended with {done.status}: {done.stdout[-500:]}{done.stderr}")
    values, _, rest = done.stdout.partition("zones\n")
    zones, _, said = rest.partition("epilogue\n")
    answers: dict[str, Any] = {"texts": list(TEXTS), "defaults": {}, "answers": {}, "zones": zones}
    for line in values.splitlines():
        name, number, verdict, value = line.split("\t", 3)
        numbers = [int(word) for word in value.split()]
        if number == "default":
            answers["defaults"][name] = numbers
        else:
            answers["answers"].setdefault(name, []).append(numbers if verdict == "taken" else None)
    return answers, said


def main() -> int:
    answers, _ = ask()
    text = ",\n".join(
        f'"{key}": {json.dumps(value)}' if key != "answers" else f'"answers": {_table(value)}'
        for key, value in answers.items()
    )
    ANSWERS.write_text(f"{{\n{text}\n}}\n")
    print(f"{len(answers['defaults'])} sysctls, {len(TEXTS)} values each")
    return 0


def _table(values: dict[str, Any]) -> str:
    rows = ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in values.items())
    return f"{{\n{rows}\n}}"


if __name__ == "__main__":
    sys.exit(main())
