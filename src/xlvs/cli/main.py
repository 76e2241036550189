"""The one entry point: picks a subcommand by program name or first argument.

A symlink named ``ipvsadm`` (or any other name in :data:`PROGRAMS`) to ``xlvs`` is that
program. A subcommand is a module of this package with ``SUMMARY`` and ``main``; it is
imported only when chosen, because start-up time is part of every ``ipvsadm`` call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from xlvs import __version__
from xlvs.errors import XlvsError

# Program names that stand on their own: name -> (module, function).
PROGRAMS = {
    "ipvsadm": ("ipvsadm", "main"),
    "ipvsadm-save": ("ipvsadm", "save"),
    "ipvsadm-restore": ("ipvsadm", "restore"),
    "keepalived": ("keepalived", "main"),
}

# Modules of this package that are no subcommands.
_INTERNAL = {"main", "engine", "defence_file"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit status."""
    argv = sys.argv if argv is None else argv
    program = os.path.basename(argv[0]) if argv else "xlvs"
    arguments = list(argv[1:])
    try:
        if program not in PROGRAMS:
            if not arguments or arguments[0] in ("-h", "--help", "help"):
                _print_help()
                return 0 if arguments else 1
            if arguments[0] in ("-V", "--version", "version"):
                print(f"xlvs {__version__}")
                return 0
            program = arguments.pop(0)
        status = _run(program, arguments)
        sys.stdout.flush()
        return status
    except XlvsError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader went away (``| head``): say nothing, and keep the interpreter
        # from trying to flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def commands() -> list[str]:
    """Names of the subcommands that are installed."""
    names = os.listdir(os.path.dirname(__file__))
    modules = {name[:-3] for name in names if name.endswith(".py") and not name.startswith("_")}
    return sorted(modules - _INTERNAL)


def _run(name: str, arguments: list[str]) -> int:
    module_name, function = PROGRAMS.get(name, (name, "main"))
    if module_name not in commands():
        return _fail(f"no command '{name}'; 'xlvs --help' lists them")
    module = import_module(f"xlvs.cli.{module_name}")
    status: int = getattr(module, function)(arguments)
    return status


def _print_help() -> None:
    print("usage: xlvs COMMAND [ARGUMENT]...\n\nThe Linux Virtual Server on an eBPF/XDP data plane.\n")
    for name in commands():
        summary = getattr(import_module(f"xlvs.cli.{name}"), "SUMMARY", "")
        print(f"  {name:<12} {summary}")
    print("\n'xlvs COMMAND --help' tells more; 'xlvs --version' prints the version.")


def _fail(message: str) -> int:
    sys.stdout.flush()
    print(f"xlvs: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
