"""Files with words and lines deleted, doubled, swapped and replaced: -t exits as the real one does.

``python -m tests.conformance.keepalived.test_mutations SEED COUNT`` asks about other ones, and prints
those on which the two differ.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.keepalived import cases
from tests.conformance.keepalived.real import Answer, namespace, ours, real

SEED, COUNT = 5, 250
PATIENCE = 5.0  # seconds: parameters that name each other it expands without end
# Each of keepalived's processes reads the file, and passes over the blocks of others by their braces:
# where those do not match, its processes do not even agree with each other. Both refuse such a file.
_BRACES = re.compile(r"Missing '\{'|Unexpected '\{'|Extra '\}'|missing '\}'s|^Unknown keyword '\}'")
_NAMES = "Invalid smtp server"  # whether a name can be resolved is not asked by ours: it may be, later


def mutants(seed: int, count: int) -> Iterator[str]:
    """Mutated samples, texts and keywords."""
    dice = random.Random(seed)
    keywords = [text for _, text in cases.keywords()]
    texts = [text for _, text in cases.samples()] + list(cases.TEXTS.values())
    for _ in range(count):
        text = dice.choice(texts) if dice.random() < 0.6 else dice.choice(keywords)
        yield cases.mutated(text, dice)


def asked(text: str) -> Answer | None:
    """The real program's answer; None where it crashes or does not come back."""
    try:
        answer = real(text, PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    return answer if answer.status >= 0 else None


def differ(real: Answer, ours: Answer) -> bool:
    """Whether the two answers are not the same, for no reason that is known."""
    told = [text for _, text in (*real.messages, *ours.messages)]
    if any(text.startswith(_NAMES) for _, text in real.messages):
        return False
    if any(_BRACES.search(text) for text in told):
        return (real.status == 0) != (ours.status == 0)
    return real.status != ours.status


def differences(seed: int, count: int) -> Iterator[tuple[str, Answer, Answer]]:
    """Of so many mutants those on which the two differ; at least half must be answered."""
    texts = list(mutants(seed, count))
    with namespace(), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(asked, texts))
    assert sum(answer is not None for answer in answers) > count // 2
    for text, answer in zip(texts, answers, strict=True):
        if answer is not None and differ(answer, mine := ours(text)):
            yield text, answer, mine


@pytest.mark.root
def test_mutated_files_exit_as_keepalived_does() -> None:
    assert list(differences(SEED, COUNT)) == []


def test_what_is_told_apart() -> None:
    said = Answer(5, ((1, "Unknown keyword 'x'"),))
    assert differ(said, Answer(0, ()))
    assert differ(said, Answer(2, ()))
    assert not differ(said, Answer(5, ()))
    braces = Answer(2, ((1, "Missing '{' at beginning of configuration block"),))
    assert not differ(braces, said)
    assert differ(braces, Answer(0, ()))


if __name__ == "__main__":
    for text, theirs, mine in differences(int(sys.argv[1]), int(sys.argv[2])):
        print(f"{text}\n    real: {theirs}\n    ours: {mine}")
