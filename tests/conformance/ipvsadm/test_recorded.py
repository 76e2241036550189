"""xlvs ipvsadm gives the real program's answers, recorded in the guest, to the byte."""

from __future__ import annotations

import pytest

from tests.conformance.ipvsadm.runner import comparable, run_recorded
from tests.conformance.ipvsadm.table import Section, load, load_answers

SECTIONS = load()


def test_the_table_is_as_long_as_promised() -> None:
    assert sum(len(section.steps) for section in SECTIONS) >= 250
    assert sum(len(section.steps) for section in SECTIONS) >= 150


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_answers_are_the_real_programs(section: Section) -> None:
    answers = load_answers(SECTIONS)
    ran = 0
    for step, answer in run_recorded(section):
        real = answers[step.line]
        where = f"table.txt:{step.line}: {step.text}"
        assert comparable(answer) == comparable(real), where
        ran += 1
    assert ran == len(section.steps)
