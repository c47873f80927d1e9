"""The last number of a text: what is read, what is unreadable, what is no number."""

from fractions import Fraction

import pytest

from eval.questions.numbers_in_text import NumberInText, last_number

EXACT = {"relative": Fraction(0), "absolute": Fraction(0)}


def number(value: str, *, is_percent: bool = False) -> NumberInText:
    return NumberInText(value=Fraction(value), is_percent=is_percent)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", "42"),
        ("42.", "42"),
        ("The total is 1,234.50 dollars.", "1234.5"),
        ("3 apples and 4 pears make 7 fruits", "7"),
        ("7 fruits; see step two", "7"),
        ("#### 42", "42"),
        ("**42**", "42"),
        ("__42__", "42"),
        (".5", "0.5"),
        ("5kg", "5"),
        ("the 3rd", "3"),
        # signs
        ("-5", "-5"),
        ("x = \u22125", "-5"),  # minus sign
        ("\u20135 degrees", "-5"),  # en dash
        ("x = - 5", "-5"),
        ("(-5)", "-5"),
        ("+5", "5"),
        ("10-5 = 5", "5"),
        ("COVID-19", "19"),
        # money
        ("$1,200", "1200"),
        ("-$5", "-5"),
        ("US$5", "5"),
        ("\u20ac 5", "5"),
        # powers of ten
        ("1e-3", "0.001"),
        ("1.5e+3", "1500"),
        ("2.5 x 10^-3", "0.0025"),
        ("2.5 \u00d7 10\u207b\u00b3", "0.0025"),  # superscripts
        (r"$2.5 \times 10^{3}$", "2500"),
        # fractions
        ("3/4", "3/4"),
        ("1 3/4", "7/4"),
        ("-1 3/4", "-7/4"),
        ("1\u00bd", "3/2"),
        ("\u00be", "3/4"),
        (r"\frac{3}{4}", "3/4"),
        (r"-\dfrac{3}{4}", "-3/4"),
        (r"1\frac{3}{4}", "7/4"),
        (r"\frac{-3}{4}", "-3/4"),
        (r"$x = \frac{1.5}{2}$", "3/4"),
        (r"\boxed{\frac{ 3 }{ 4 }}", "3/4"),
        (r"\frac12", "1/2"),
        (r"1\frac34", "7/4"),
        (r"\sqrt{16} = 4", "4"),
        (r"$\sqrt{2}\approx1.414$", "1.414"),
        # what is not part of the number
        ("5 m^2", "5"),
        ("5 m\u00b2", "5"),
        ("7 parts of H2O", "7"),
        (r"\boxed{42}", "42"),
        ("1{,}234", "1234"),
        (r"1\,234", "1234"),
        ("1\u00a0234", "1234"),
        ("1\u202f234", "1234"),
    ],
)
def test_numbers_that_are_read(text: str, value: str) -> None:
    assert last_number(text) == number(value)


@pytest.mark.parametrize("text", ["50%", "50 %", r"50\%", "50 percent", "50 per cent.", "= 50%"])
def test_a_percent_sign_is_noted(text: str) -> None:
    assert last_number(text) == number("50", is_percent=True)


@pytest.mark.parametrize(
    "text",
    [
        "12:30",
        "1.234,56",  # 1234.56 in half of Europe
        "1,2",
        "4,5,6",
        "1.2.3",
        "1/2/2024",
        "1/0",
        "2024-05-01",
        "3-4",
        "3\u20134",
        "50%-60%",
        "5 - 3",
        "3*4",
        "10^3",
        "2^10",
        "10^-3",
        "10\u00b2",
        "10 000",  # one number, or two
        "5 million",
        "5M",
        "10k",
        "0x1F",
        "1e999999",  # would take a million digits
        "9" * 65,
        r"\sqrt{2}",
        r"3\sqrt{2}",
        r"$\frac{\pi}{2}$",
        r"\boxed{\frac{\sqrt{3}}{2}}",
        "2\u03c0",
    ],
)
def test_what_has_no_one_value_is_unreadable(text: str) -> None:
    assert isinstance(last_number(text), str)


@pytest.mark.parametrize("text", ["", "seven", "H2O", "m\u00b2", "x^2", "-", "%"])
def test_no_number(text: str) -> None:
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("one", "other", "is_close"),
    [
        (number("50", is_percent=True), number("50"), True),
        (number("50", is_percent=True), number("0.5"), True),
        (number("0.5"), number("50", is_percent=True), True),
        (number("50"), number("50", is_percent=True), True),
        (number("0.5", is_percent=True), number("50", is_percent=True), False),
        (number("5"), number("50", is_percent=True), False),
        (number("-5"), number("5"), False),
    ],
)
def test_a_percentage_is_a_number_or_a_share(
    one: NumberInText, other: NumberInText, is_close: bool
) -> None:
    assert one.is_close(other, **EXACT) is is_close


@pytest.mark.parametrize(
    ("value", "is_close"),
    [("198", True), ("202", True), ("202.01", False), ("197.9", False)],  # 1 % of 200 is 2
)
def test_the_relative_tolerance_is_of_the_other_number(value: str, is_close: bool) -> None:
    tolerances = {"relative": Fraction(1, 100), "absolute": Fraction(1)}
    assert number(value).is_close(number("200"), **tolerances) is is_close


def test_the_absolute_tolerance_counts_where_it_is_larger() -> None:
    tolerances = {"relative": Fraction(1, 100), "absolute": Fraction(1, 2)}
    assert number("0.5").is_close(number("0"), **tolerances)
    assert not number("0.51").is_close(number("0"), **tolerances)
