"""No command in our documents goes untested: tests/netns/test_docs.py runs them all,
except ``make``, which is run as this table says."""

from __future__ import annotations

import re

import pytest

from tests.documents import REPOSITORY, Block, blocks, console_blocks, documents, is_make

# Who runs a make target that a document tells people to type: the file, and the words in it.
MAKE_RUN_BY = {
    "make setup": ("Makefile", "test: setup"),
    "make test": (".ci/run", "make test"),
    "make lint": (".ci/run", "make lint"),
    "make demo": ("tests/netns/test_docs.py", '"make", "demo"'),
}
LANGUAGES = {"", "console", "c", "python", "text"}


def test_documents_are_found() -> None:
    assert REPOSITORY / "README.md" in documents()
    assert any("make demo" in block.commands for block in console_blocks())


@pytest.mark.parametrize("block", list(blocks()), ids=str)
def test_language_is_known(block: Block) -> None:
    # A command in a block of another name (sh, bash) would escape the tests.
    assert block.language in LANGUAGES


@pytest.mark.parametrize("block", console_blocks(), ids=str)
def test_every_make_command_is_run_by_someone(block: Block) -> None:
    for command in filter(is_make, block.commands):
        assert command in MAKE_RUN_BY, f"{block}: nothing runs {command}"
        path, words = MAKE_RUN_BY[command]
        assert words in (REPOSITORY / path).read_text()


@pytest.mark.parametrize("block", console_blocks(), ids=str)
def test_make_and_other_commands_do_not_mix(block: Block) -> None:
    # tests/netns/test_docs.py runs whole blocks, and only those without make.
    assert len({is_make(command) for command in block.commands}) == 1


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for block in console_blocks():
        for command in filter(is_make, block.commands):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_paths_that_documents_name_are_there() -> None:
    named = re.compile(r"\b(?:tests|bpf|bench|src|docs|scripts)/[\w./-]*[\w]")
    for path in documents():
        if path.name == "CHANGELOG.md":  # of what was there once, too
            continue
        for name in named.findall(path.read_text()):
            assert (REPOSITORY / name).exists(), f"{path.name} names {name}"
