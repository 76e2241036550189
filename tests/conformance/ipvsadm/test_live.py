"""A random part of the recorded answers, asked again of the real program, live."""

from __future__ import annotations

import os
import random

import pytest

from tests.conformance.ipvsadm.record import ask
from tests.conformance.ipvsadm.runner import comparable, run_recorded
from tests.conformance.ipvsadm.table import Section, load, load_answers

LINES = 30


@pytest.mark.guest
@pytest.mark.root
def test_a_random_part_is_still_what_the_real_program_says() -> None:
    seed = int(os.environ.get("XLVS_SEED", random.randrange(2**32)))
    print(f"XLVS_SEED={seed}")  # pytest shows it with a failure
    sections = load()
    answers = load_answers(sections)
    random.Random(seed).shuffle(sections)
    chosen: list[Section] = []
    while sum(len(section.steps) for section in chosen) < LINES:
        chosen.append(sections.pop())
    live = ask(chosen).answers
    assert len(live) >= LINES
    for section in chosen:
        for step, answer in run_recorded(section):
            where = f"seed {seed}, table.txt:{step.line}: {step.text}"
            assert live[step.line] == answers[step.line], f"{where}: not what was recorded"
            assert comparable(answer) == comparable(live[step.line]), where
