"""Build hook of the wheel: compile the BPF objects that it ships.

The Makefile alone knows how to compile them; this only asks for it.
"""

from __future__ import annotations

import subprocess
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileBpf(BuildHookInterface[Any]):
    """Run ``make bpf`` before the files of a wheel are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  hatchling's signature
        """Compile for a real wheel; an editable install and an sdist carry no objects."""
        if self.target_name == "wheel" and version != "editable":
            subprocess.run(["make", "--no-print-directory", "-C", self.root, "bpf"], check=True)
