"""Which option an answer settles on: one, none, or several left open."""

import pytest

from eval.questions.choices_in_text import chosen_labels

LETTERS = dict.fromkeys("ABCD")
CITIES = {"A": "Paris", "B": "London", "C": "New York", "D": "Rome"}


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        # the whole answer
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B.**", "B"),
        (r"$\text{B}$", "B"),
        # a statement
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("Answer:\n(b)", "B"),
        ("The answer is B.", "B"),
        ("the answer is b", "B"),
        ("The correct option is (C).", "C"),
        ("The best choice would be option C.", "C"),
        ("Final answer (B)", "B"),
        (r"So we get $\boxed{\text{D}}$", "D"),
        ("The answer is A because B is not.", "A"),
        ("First I thought the answer is A. No: the answer is C.", "C"),
        ("Option A is wrong, so the answer is D", "D"),
        # the beginning
        ("B) Paris", "B"),
        ("B. Paris\nIt is not A", "B"),
        ("C\n\nBecause A is wrong", "C"),
        # named anywhere
        ("I think B is right", "B"),
        ("A seems right", ""),  # an article, for all that can be told
        ("It is A", "A"),
        # nothing
        ("", ""),
        ("No idea", ""),
        ("A dog is an animal", ""),
        ("The answer is not B", ""),
        ("It isn't B", ""),
        # several
        ("A or B", "AB"),
        ("The answer is A or B", "AB"),
        ("Answer: A, B and D", "ABD"),
        ("It is either B or C, so B", "BC"),
        ("A. Paris\nB. London", "AB"),
        ("B, because A is not", "AB"),
    ],
)
def test_labels(answer: str, labels: str) -> None:
    assert chosen_labels(answer, LETTERS) == frozenset(labels)


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("Paris", "A"),
        ("paris.", "A"),
        ("The answer is London.", "B"),
        ("Answer: new york", "C"),
        ("It is Rome, of course", "D"),
        ("It is not Rome but Paris", "A"),
        ("London (B)", "B"),
        ("New York or Rome", "CD"),
        ("Romeo", ""),
        ("Berlin", ""),
    ],
)
def test_texts_of_options(answer: str, labels: str) -> None:
    assert chosen_labels(answer, CITIES) == frozenset(labels)


def test_labels_may_be_numbers_or_words() -> None:
    assert chosen_labels("The answer is 2.", dict.fromkeys(("1", "2", "12"))) == {"2"}
    assert chosen_labels("12", dict.fromkeys(("1", "2", "12"))) == {"12"}
    assert chosen_labels("Answer: Yes", dict.fromkeys(("Yes", "No"))) == {"Yes"}


def test_an_option_that_says_nothing_is_not_chosen_by_an_empty_answer() -> None:
    assert chosen_labels("", {"A": ".", "B": "x"}) == frozenset()
