"""What bpf/abi.h says, asked of the C compiler: values of its constants and its texts."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILER = ("clang-16", "-x", "c", "-Wall", "-Werror", "-shared", "-fPIC")


class Contract:
    """abi.h compiled into a library of this machine."""

    def __init__(self, names: Iterable[str]) -> None:
        probes = "".join(f"const long long probe_{name} = (long long)({name});\n" for name in names)
        text = (
            '#include "abi.h"\n'
            "#define X(name, text) #name,\n"
            "const char *const names[] = { XLVS_OUTCOMES(X) };\n"
            "#undef X\n"
            "#define X(name, text) text,\n"
            "const char *const texts[] = { XLVS_OUTCOMES(X) };\n"
            "const int outcomes = XLVS_OUTCOME_COUNT;\n"
        )
        with tempfile.TemporaryDirectory(prefix="xlvs-abi.") as scratch:
            library = f"{scratch}/contract.so"
            subprocess.run(
                [*COMPILER, f"-I{REPOSITORY}/bpf", "-o", library, "-"],
                input=text + probes,
                text=True,
                check=True,
            )
            self._library = ctypes.CDLL(library)

    def value(self, name: str) -> int:
        """A constant's value."""
        return ctypes.c_longlong.in_dll(self._library, f"probe_{name}").value

    def outcomes(self) -> list[tuple[str, str]]:
        """Names and texts of enum xlvs_outcome."""
        count = ctypes.c_int.in_dll(self._library, "outcomes").value
        strings = ctypes.c_char_p * count
        names = strings.in_dll(self._library, "names")
        texts = strings.in_dll(self._library, "texts")
        return [
            (name.decode(), text.decode())
            for name, text in zip(names, texts, strict=True)
            if name is not None and text is not None
        ]
