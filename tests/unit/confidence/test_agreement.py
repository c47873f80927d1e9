"""Normal forms: which answers say the same, and which do not."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridserve_llm.confidence.agreement import agreement_key, normal_form
from hybridserve_llm.values.answers import Answer, Completion, ToolCall, Usage

DEEP = 300
"""Levels of JSON that orjson reads (up to 1,024) and does not write (up to 254)."""


def completion(*texts: str, calls: tuple[tuple[str, str], ...] = ()) -> Completion:
    tool_calls = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls)
    answers = (Answer(text=text, finish_reason="stop", tool_calls=tool_calls) for text in texts)
    return Completion(answers=tuple(answers), usage=Usage(), body={})


def called(*calls: tuple[str, str], text: str = "") -> str | None:
    return agreement_key(completion(text, calls=calls))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1,234.50", "1234.5"),
        ("1234567", "1234567"),
        ("1,234,567", "1234567"),
        ("+42", "42"),
        ("-42.0", "-42"),
        ("100", "100"),  # zeros before the point count
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("007", "7"),
        ("**42**.", "42"),
        ("\uff14\uff12", "42"),  # full-width digits, NFKC
        # No thousands' commas: left as they are.
        ("1,5", "1,5"),
        ("12,34", "12,34"),
        ("1,2345", "1,2345"),
        ("42 km", "42 km"),
        ("1e3", "1e3"),
    ],
)
def test_a_number_alone_has_one_form(text: str, form: str) -> None:
    assert normal_form(text) == form


def test_long_numbers_that_differ_in_one_digit_differ() -> None:
    # Python's decimals keep 28 digits unless told otherwise.
    assert normal_form("9" * 40) == "9" * 40
    assert normal_form("9" * 39 + "8") != normal_form("9" * 40)
    # Beyond 64 characters they are compared as text.
    assert normal_form("1" * 80 + ".0") == "1" * 80 + ".0"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Paris", "paris"),
        ("  PARIS.\n", "paris"),
        ('"Paris"', "paris"),
        ("'Paris'!", "paris"),
        ("**Paris**", "paris"),
        ("`Paris`.", "paris"),
        ("the  quick\n\nfox", "the quick fox"),
        ("Stra\u00dfe", "strasse"),  # case-folded, not only lower-cased
        ("\ufb01re", "fire"),  # a ligature, NFKC
        ("e\u0301", "\u00e9"),  # a letter and its accent, NFKC
        ("U.S.", "u.s"),
        ("yes, it is", "yes, it is"),
        ("it's", "it's"),  # a quote inside is no quote around
    ],
)
def test_case_quotes_emphasis_stops_and_spaces_do_not_count(text: str, form: str) -> None:
    assert normal_form(text) == form


@pytest.mark.parametrize("text", ["", "   ", "\n", "...", '""', "**", "' '"])
def test_what_holds_nothing_has_no_form(text: str) -> None:
    assert normal_form(text) is None


def test_other_answers_have_other_forms() -> None:
    texts = ["42", "43", "-42", "4.2", "forty-two", "42%", "[42]", "paris", "paris france"]
    assert len({normal_form(text) for text in texts}) == len(texts)


def test_json_is_compared_without_the_order_of_its_keys_and_its_spaces() -> None:
    one = normal_form('{"b": [1, 2], "a": {"d": 1, "c": "X"}}')
    assert one == '{"a":{"c":"X","d":1},"b":[1,2]}'
    assert normal_form(' {"a":{"c":"X","d":1},\n"b":[1,2]} ') == one
    assert normal_form('{"a":{"c":"x","d":1},"b":[1,2]}') != one  # strings keep their case
    assert normal_form('{"a":{"c":"X","d":1},"b":[2,1]}') != one  # lists keep their order


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"A": 1', '{"a": 1'),
        ("[Citation needed]", "[citation needed]"),
        ('{"A": NaN}', '{"a": nan}'),
        ("[1e999]", "[1e999]"),
        ('["\\ud800"]', '["\\ud800"]'),
        ("[" * DEEP + "]" * DEEP, "[" * DEEP + "]" * DEEP),
    ],
    ids=["cut off", "a bracket", "NaN", "infinite", "half a surrogate", "too deep"],
)
def test_what_only_begins_like_json_is_text(text: str, form: str) -> None:
    assert normal_form(text) == form


def test_tool_calls_are_compared_by_name_and_arguments() -> None:
    key = called(("add", '{"a": 1, "b": 2}'))
    assert key == '[["add",{"a":1,"b":2}]]'
    assert called(("add", '{"b":2,"a":1}')) == key
    assert called(("add", '{"b":2,"a":1}'), text="I shall add them.") == key
    assert called(("add", '{"a": 1, "b": 3}')) != key
    assert called(("sub", '{"a": 1, "b": 2}')) != key
    first, second = ("f", '{"x": 1}'), ("g", "{}")
    assert called(first, second) != called(second, first)  # calls keep their order


def test_arguments_that_are_no_json_are_compared_as_they_were_written() -> None:
    assert called(("f", "{broken")) == called(("f", "{broken"))
    assert called(("f", "{broken")) != called(("f", "{ broken"))
    deep = '{"a":' * DEEP + "1" + "}" * DEEP
    assert called(("f", deep)) == called(("f", deep)) is not None


def test_one_answer_has_a_key_and_several_or_none_have_not() -> None:
    assert agreement_key(completion(" 42. ")) == "42"
    assert agreement_key(completion("42", "42")) is None
    assert agreement_key(completion()) is None
    assert agreement_key(completion("")) is None


ANSWERS = st.one_of(
    st.text(),
    st.text(alphabet=" .,!*`'\"{}[]:+-0123456789eEaA\u00df\u0345\uff15", max_size=30),
    st.from_regex(r"\s*[*\"'`]{0,2}[+-]?[\d,]{0,9}\.?\d{0,4}[*\"'`.!]{0,3}\s*", fullmatch=True),
)


@given(ANSWERS)
@example('"{"B": 1, "A": 2}"')  # JSON inside quotes
@example("'{}'")
@example("\u0345\u0301")  # NFKC and case-folding do not commute
@example("'.5'")
def test_a_normal_form_is_its_own_normal_form(text: str) -> None:
    form = normal_form(text)
    assert form is None or normal_form(form) == form


@given(ANSWERS)
def test_what_is_around_an_answer_does_not_count(text: str) -> None:
    assert normal_form(f' "{text}". ') == normal_form(f"**{text}**")
