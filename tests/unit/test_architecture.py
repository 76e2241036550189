"""The house rules of ARCHITECTURE.md: floors, pure rooms, lengths.

Every import in src/xlvs is read from its syntax tree, the late ones inside functions too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src" / "xlvs"
BPF = REPOSITORY / "bpf"

# The floor of each room (a package or module right under xlvs). Arrows point down.
FLOORS = {
    "errors": 1,
    "model": 1,
    "health": 1,
    "dataplane": 2,
    "network": 2,
    "keepalived": 2,
    "vrrp": 2,
    "sync": 2,
    "reconcile": 2,
    "daemon": 3,
    "ipvsadm": 3,
    "observe": 3,
    "realserver": 3,
    "lab": 3,
    "cli": 4,
}
# Arrows between rooms of one floor: from a room to one module of another, each with its reason.
NEIGHBOURS = {
    ("network", "dataplane.host"): "implements what the data plane asks of its host",
}
# Rooms that know neither the network nor the clock: time is an argument, commands are returned.
PURE = ("model", "errors", "health", "keepalived", "vrrp", "sync", "reconcile", "dataplane.port")
IMPURE_IMPORTS = ("socket", "time", "datetime", "asyncio", "subprocess", "threading", "select", "selectors")
MODULE_LINES = 500
FUNCTION_LINES = 80


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    """The module's name without the leading ``xlvs.``; "" for xlvs itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    """Full dotted names that a module imports; ``from a import b`` gives ``a.b``."""
    package = ("xlvs." + dotted(path)).rstrip(".").split(".")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = node.level - (path.name == "__init__.py")
            base = ".".join(package[: len(package) - up]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            yield from (f"{source}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """The room of a full dotted name, or None for what is not ours (or xlvs itself)."""
    parts = name.split(".")
    return parts[1] if parts[0] == "xlvs" and len(parts) > 1 and parts[1] != "__version__" else None


def test_there_is_a_tree_to_look_at() -> None:
    assert len(modules()) > 5
    assert "xlvs.errors.XlvsError" in set(imports(SOURCE / "cli" / "main.py"))


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_arrows_point_down(path: Path) -> None:
    here = dotted(path).split(".")[0]
    if not here:
        return
    assert here in FLOORS, f"{here} is a new room: give it a floor here and in ARCHITECTURE.md"
    for name in imports(path):
        there = room(name)
        if there is None or there == here:
            continue
        assert there in FLOORS, f"{path} imports {name}, which has no floor"
        if FLOORS[there] == FLOORS[here]:
            module = ".".join(name.split(".")[1:3])
            assert (here, module) in NEIGHBOURS, f"{path} imports its neighbour {name}"
        assert FLOORS[there] <= FLOORS[here], f"{path} (floor {FLOORS[here]}) imports {name} from above"


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if f"{dotted(path)}.".startswith(tuple(f"{name}." for name in PURE))],
    ids=dotted,
)
def test_pure_rooms_know_no_socket_and_no_clock(path: Path) -> None:
    # "socket.AF_INET"-like constants are a socket import too: model.py has its own.
    found = [name for name in imports(path) if name.split(".")[0] in (*IMPURE_IMPORTS, "pyroute2")]
    assert not found, f"{path} is pure, but imports {found}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES, f"{path}: split it"


def test_tests_and_headers_are_short() -> None:
    texts = [*(REPOSITORY / "tests").rglob("*.py"), *BPF.rglob("*.[ch]")]
    long = [str(path) for path in texts if len(path.read_text().splitlines()) > MODULE_LINES]
    assert not long, f"split: {long}"


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and length in lines of each function of a kernel-style C text."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line == "{":
            start = number
            while start > 0 and lines[start - 1].strip() and not lines[start - 1].startswith(("}", "#", "*")):
                start -= 1
            name = re.search(r"(\w+)\s*\(", " ".join(lines[start:number]))
            end = next(i for i in range(number, len(lines)) if lines[i].startswith("}"))
            yield (name.group(1) if name else "?"), end - start + 1


def test_bpf_functions_are_short() -> None:
    assert list(c_functions("int f(int a,\n      int b)\n{\n\treturn a;\n}\n")) == [("f", 5)]
    long = [
        f"{path.name}: {name}, {length} lines"
        for path in BPF.rglob("*.[ch]")
        for name, length in c_functions(path.read_text())
        if length > FUNCTION_LINES
    ]
    assert not long, long


def test_forwarding_methods_do_not_know_each_other() -> None:
    for path in (BPF / "forward").glob("*.h"):
        included = re.findall(r'#include\s+"(?:forward/)?(nat|dr|tun|fullnat)\.h"', path.read_text())
        assert not included, f"{path} includes {included}"
