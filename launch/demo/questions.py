"""Generate the demo's questions from seeds, with reference answers, reasoning traces and splits.

Why questions are generated and not shipped: a seed and this file are the whole data set, so a
reader can draw as many fresh questions as a measurement needs. A question belongs to one split for
good, because the split is a hash of its operands and not of its wording: no question of the
calibration or test split was ever trained on, however it is phrased.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from launch.demo import traces

Split = Literal["train", "validation", "calibration", "test"]

_SPLIT_PERCENT: tuple[tuple[Split, int], ...] = (
    ("train", 70),
    ("validation", 5),
    ("calibration", 10),
    ("test", 15),
)
_CONSONANTS = "bcdfghjklmnprstvw"
_VOWELS = "aeiou"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Hold one question and its reference answer; a step-by-step tier learns the reasoning `trace`.

    `key` names the task and its operands in a canonical order: two wordings of one question, or
    the two orders of a sum, share it. `level` counts from 0 (easiest size of its task).
    """

    task: str
    level: int
    key: str
    prompt: str
    answer: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Describe a family of questions: its share, its sizes (easy to hard) and its generator."""

    share: int
    sizes: tuple[tuple[int, ...], ...]
    size_weights: tuple[int, ...]
    wordings: tuple[str, ...]
    make: Callable[[random.Random, tuple[int, ...]], "Draw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Hold a generator's result: operands for the wording, canonical operands, answer and trace."""

    operands: tuple[str, ...]
    canonical: str
    answer: str
    trace: str


def split_of(key: str) -> Split:
    """Return the split of a question, from a hash of its canonical key (stable over versions)."""
    percent = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % 100
    for split, share in _SPLIT_PERCENT:
        if percent < share:
            return split
        percent -= share
    raise AssertionError("the shares of the splits sum to 100")


def draw_question(rng: random.Random, *, hardest_level: int | None = None) -> Question:
    """Draw a question of the task mix, of any split; levels above `hardest_level` are left out."""
    names = list(TASKS)
    task = rng.choices(names, weights=[TASKS[name].share for name in names])[0]
    return draw_task_question(task, rng, hardest_level=hardest_level)


def draw_task_question(
    name: str, rng: random.Random, *, hardest_level: int | None = None
) -> Question:
    """Draw one question of the task `name`, of any split."""
    task = TASKS[name]
    n_levels = len(task.sizes) if hardest_level is None else min(hardest_level + 1, len(task.sizes))
    level = rng.choices(range(n_levels), weights=task.size_weights[:n_levels])[0]
    drawn = task.make(rng, task.sizes[level])
    wording = task.wordings[0] if rng.random() < 0.7 else rng.choice(task.wordings[1:])
    return Question(
        task=name,
        level=level,
        key=f"{name}:{drawn.canonical}",
        prompt=wording.format(*drawn.operands),
        answer=drawn.answer,
        trace=drawn.trace,
    )


def distinct_questions(split: Split, *, seed: int) -> Iterator[Question]:
    """Draw an endless stream of questions of one split, in the task mix, no key twice.

    Small task spaces (one-digit products) run dry: their share then falls to the other sizes.
    """
    rng = random.Random(f"{split}:{seed}")
    seen: set[str] = set()
    while True:
        question = draw_question(rng)
        if question.key not in seen and split_of(question.key) == split:
            seen.add(question.key)
            yield question


def _number(rng: random.Random, n_digits: int) -> int:
    return rng.randint(10 ** (n_digits - 1) if n_digits > 1 else 0, 10**n_digits - 1)


def _sum(rng: random.Random, size: tuple[int, ...]) -> Draw:
    a, b = _number(rng, size[0]), _number(rng, rng.randint(1, size[0]))
    if rng.random() < 0.5:
        a, b = b, a
    low, high = sorted((a, b))
    return Draw(
        operands=(str(a), str(b)),
        canonical=f"{low},{high}",
        answer=str(a + b),
        trace=traces.column_sum(a, b),
    )


def _difference(rng: random.Random, size: tuple[int, ...]) -> Draw:
    pair = (_number(rng, size[0]), _number(rng, rng.randint(1, size[0])))
    a, b = max(pair), min(pair)
    return Draw(
        operands=(str(a), str(b)),
        canonical=f"{a},{b}",
        answer=str(a - b),
        trace=traces.column_difference(a, b),
    )


def _product(rng: random.Random, size: tuple[int, ...]) -> Draw:
    a, b = _number(rng, size[0]), _number(rng, size[1])
    low, high = sorted((a, b))
    return Draw(
        operands=(str(a), str(b)),
        canonical=f"{low},{high}",
        answer=str(a * b),
        trace=traces.long_product(a, b),
    )


def _larger(rng: random.Random, size: tuple[int, ...]) -> Draw:
    a = _number(rng, size[0])
    # Half of the pairs share leading digits: comparing the first digit alone must not be enough.
    if rng.random() < 0.5:
        step = rng.randint(1, 10 ** rng.randint(1, size[0]))
        b = a + step if rng.random() < 0.5 else max(a - step, 0)
    else:
        b = _number(rng, rng.randint(max(1, size[0] - 1), size[0]))
    b = a + 1 if a == b else b
    low, high = sorted((a, b))
    return Draw(
        operands=(str(a), str(b)),
        canonical=f"{low},{high}",
        answer=str(high),
        trace=traces.digit_comparison(a, b),
    )


def _sort(rng: random.Random, size: tuple[int, ...]) -> Draw:
    numbers = rng.sample(range(100), size[0])
    return Draw(
        operands=(" ".join(map(str, numbers)),),
        canonical=",".join(map(str, sorted(numbers))),
        answer=" ".join(map(str, sorted(numbers))),
        trace=traces.selection_sort(numbers),
    )


def _word(rng: random.Random, length: int) -> str:
    if rng.random() < 0.6:
        start = rng.randint(0, 1)
        return "".join(
            rng.choice(_VOWELS if (i + start) % 2 else _CONSONANTS) for i in range(length)
        )
    return "".join(rng.choice(_LETTERS) for _ in range(length))


def _count(rng: random.Random, size: tuple[int, ...]) -> Draw:
    letter = rng.choice(_LETTERS)
    word = list(_word(rng, rng.randint(size[0], size[1])))
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))):
        word[rng.randrange(len(word))] = letter
    text = "".join(word)
    return Draw(
        operands=(letter, text),
        canonical=f"{letter},{text}",
        answer=str(text.count(letter)),
        trace=traces.running_count(letter, text),
    )


def _reverse(rng: random.Random, size: tuple[int, ...]) -> Draw:
    word = _word(rng, rng.randint(size[0], size[1]))
    return Draw(
        operands=(word,), canonical=word, answer=word[::-1], trace=traces.indexed_reversal(word)
    )


def _sequence(rng: random.Random, size: tuple[int, ...]) -> Draw:
    growth = size[0]  # 0: constant step; 1: the step itself grows by a constant
    start, step = rng.randint(0, 60), rng.randint(1, 12)
    step_growth = rng.randint(1, 4) if growth else 0
    terms = [start]
    for i in range(4):
        terms.append(terms[-1] + step + i * step_growth)
    if not growth and rng.random() < 0.4:
        terms.reverse()
    shown, answer = terms[:-1], terms[-1]
    listed = " ".join(map(str, shown))
    return Draw(
        operands=(listed,),
        canonical=listed.replace(" ", ","),
        answer=str(answer),
        trace=traces.steps_of_sequence(shown, answer),
    )


def _digit_sum(rng: random.Random, size: tuple[int, ...]) -> Draw:
    number = _number(rng, size[0])
    return Draw(
        operands=(str(number),),
        canonical=str(number),
        answer=str(sum(map(int, str(number)))),
        trace=traces.running_digit_sum(number),
    )


def _remainder(rng: random.Random, size: tuple[int, ...]) -> Draw:
    number, divisor = _number(rng, size[0]), rng.randint(2, 9)
    return Draw(
        operands=(str(number), str(divisor)),
        canonical=f"{number},{divisor}",
        answer=str(number % divisor),
        trace=traces.long_division(number, divisor),
    )


TASKS: dict[str, Task] = {
    "sum": Task(
        share=14,
        sizes=((1,), (2,), (3,), (4,)),
        size_weights=(1, 4, 5, 4),
        wordings=("What is {} + {}?", "{} + {} = ?", "Add {} and {}."),
        make=_sum,
    ),
    "difference": Task(
        share=12,
        sizes=((1,), (2,), (3,), (4,)),
        size_weights=(1, 4, 4, 3),
        wordings=("What is {} - {}?", "{} - {} = ?"),
        make=_difference,
    ),
    "product": Task(
        share=16,
        sizes=((1, 1), (2, 1), (3, 1), (2, 2), (3, 2)),
        size_weights=(2, 5, 4, 5, 4),
        wordings=("What is {} * {}?", "{} * {} = ?", "What is {} times {}?"),
        make=_product,
    ),
    "larger": Task(
        share=12,
        sizes=((2,), (3,), (4,), (5,)),
        size_weights=(2, 3, 3, 2),
        wordings=("Which is larger, {} or {}?", "Larger of {} and {}?"),
        make=_larger,
    ),
    "sort": Task(
        share=10,
        sizes=((3,), (4,), (5,), (6,)),
        size_weights=(2, 3, 3, 2),
        wordings=("Sort {}.", "Sort these numbers: {}."),
        make=_sort,
    ),
    "count": Task(
        share=8,
        sizes=((3, 5), (6, 8), (9, 11)),
        size_weights=(2, 3, 2),
        wordings=("How many {} in {}?", "Count the letter {} in {}."),
        make=_count,
    ),
    "reverse": Task(
        share=10,
        sizes=((3, 5), (6, 7), (8, 9)),
        size_weights=(2, 3, 2),
        wordings=("Reverse {}.", "Spell {} backwards."),
        make=_reverse,
    ),
    "sequence": Task(
        share=8,
        sizes=((0,), (1,)),
        size_weights=(3, 2),
        wordings=("What comes next: {}?", "Continue {}."),
        make=_sequence,
    ),
    "digit_sum": Task(
        share=5,
        sizes=((2,), (3,), (4,), (5,)),
        size_weights=(1, 2, 2, 2),
        wordings=("Digit sum of {}?", "Sum of the digits of {}?"),
        make=_digit_sum,
    ),
    "remainder": Task(
        share=5,
        sizes=((2,), (3,)),
        size_weights=(2, 2),
        wordings=("What is {} mod {}?", "Remainder of {} divided by {}?"),
        make=_remainder,
    ),
}
