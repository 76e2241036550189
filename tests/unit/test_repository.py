"""The repository's own promises: packages with reasons, one command a target."""

from __future__ import annotations

import re
import tomllib

from tests.documents import REPOSITORY


def test_every_package_has_a_reason() -> None:
    packages = [
        line
        for line in (REPOSITORY / "packages.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(packages) > 10
    assert len({line.split()[0] for line in packages}) == len(packages)
    for line in packages:
        assert re.fullmatch(r"[a-z0-9.+-]+ +# \S.{10,}", line), line


def test_dependencies_are_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    for requirement in wanted:
        assert re.fullmatch(r"[A-Za-z0-9-]+==[0-9.]+", requirement), requirement


def test_make_explains_its_targets() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    for target in phony:
        assert re.search(rf"^{target}:.*## \w", makefile, re.MULTILINE), (
            f"make help does not tell of {target}"
        )
    assert {"setup", "demo", "test", "lint", "bench", "clean"} <= set(phony)
