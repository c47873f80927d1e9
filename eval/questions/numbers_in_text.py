r"""Read the last number of a text exactly, for the numeric grader.

Read are digits with or without thousands' commas, decimals, `1e-3`, `2.5 x 10^-3`, fractions
(`3/4`, `1 3/4`, `\frac{3}{4}`, `\frac12`), percent signs, and minus signs of all kinds. Words
("seven") are no numbers here. What holds digits and has no one value (`12:30`, `1.234,56`, `3-4`,
`2^10`, `10 000`, `5 million`), or one that is still to be worked out (`\sqrt{2}`, `2\pi`,
`\frac{\pi}{2}`), is unreadable, which is not the same as no number.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_VULGAR = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_RAISED = re.compile(f"\u207b?[{_SUPERSCRIPTS}]+")
_FROM_RAISED = str.maketrans(_SUPERSCRIPTS + "\u207b", "0123456789-")
_MINUS = str.maketrans("\u2212\u2013\u2044", "--/")
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\{)\s+|\s+(?=\})|(?<=\})\s+(?=\{)", ""),
        (r"(?<=\d)(?=\\[dt]?frac[{\d])", " "),
        (r"\\[dt]?frac(\d)(\d)(?!\d)", r"\1/\2"),
        (r"\\[dt]?frac\{(-?\d+(?:\.\d+)?)\}\{(\d+(?:\.\d+)?)\}", r"\1/\2"),
        (r"\\(?:approx|simeq)(?![a-z])", "\u2248"),
        (r"(?<=\d)(?:\{,\}|\\,|\\!)(?=\d{3})", ","),
        (r"\\(?=%)", ""),
        (r"\^\{([+-]?\d+)\}", r"^\1"),
        (r"(?<=\d) *(?:\u00d7|x|\*|\\times|\\cdot) *10\^([+-]?\d+)", r"e\1"),
        (r"(?<=[+-])[$\u20ac\u00a3\u00a5] *", ""),
        (r"[$\u20ac\u00a3\u00a5]", " "),
    )
)
_THIN_SPACES = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")

_NUMBER = re.compile(
    r"""
    (?<![^\W_])(?<![\^.])(?<!\^[+-])        # not inside a word (H2O), not an exponent (m^2)
    (?:(?P<whole>\d+)[ ](?=\d+/\d+(?![\d/.])))?
    (?P<body>\.?\d(?:(?:[\d.,:/'_]|\^[+-]?)*\d)?(?:[eE][+-]?\d+(?![^\W_]))?)
    (?P<scale>[kKMB]\b|\ *(?:thousand|million|billion|trillion)\b|[^\W\d_]+\d\w*)?
    (?P<percent>\ *(?:%|per\ ?cent\b))?
    """,
    re.VERBOSE,
)
_PLAIN = re.compile(r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_SIGNED = re.compile(r"(?:^|[^\w)\]}%])-$|[=:(~\u2248] *- +$")
_PART_OF_MORE = re.compile(r"[\d%] *[-+*] *$")
"""Text before the second number of a range, a date or a sum that was not worked out."""
_TO_WORK_OUT = re.compile(r"\\(?:[dt]?frac|sqrt|pi|binom|log|ln|exp)(?![a-z])|[\u03c0\u221a]")
_TERM_ENDS = re.compile(r"[\s=\u2248~]")
_SPACED_THOUSANDS = re.compile(r"\d [0-9]{3}$")
_MAX_CHARACTERS = 64
_LOOK_BACK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberInText:
    """Hold a number as it was written: of `50%` the value is 50."""

    value: Fraction
    is_percent: bool = False

    def is_close(self, other: "NumberInText", *, relative: Fraction, absolute: Fraction) -> bool:
        """Return True where both are the same within max(absolute, relative * |other|).

        Where one of them alone is in percent, it may be meant as written or as a share: `50%` is
        close to 50 and to 0.5.
        """
        mine: tuple[Fraction, ...] = (self.value,)
        theirs: tuple[Fraction, ...] = (other.value,)
        if self.is_percent and not other.is_percent:
            mine = (self.value, self.value / 100)
        elif other.is_percent and not self.is_percent:
            theirs = (other.value, other.value / 100)
        return any(abs(a - b) <= max(absolute, relative * abs(b)) for a in mine for b in theirs)


def last_number(text: str) -> NumberInText | str | None:
    """Return the last number of `text`, its words where they cannot be read, None where none is."""
    plain = _plain_text(text)
    numbers = list(_NUMBER.finditer(plain))
    if not numbers:
        return None
    last = numbers[-1]
    value = None if _is_part_of_more(plain, last) else _value(last)
    if value is None:
        return last[0].strip()
    is_negative = _SIGNED.search(plain[: last.start()][-_LOOK_BACK:]) is not None
    return NumberInText(
        value=-value if is_negative else value, is_percent=last["percent"] is not None
    )


def _is_part_of_more(plain: str, number: re.Match[str]) -> bool:
    """Return True where the text around the digits leaves the number without one value."""
    before = plain[max(number.start() - _LOOK_BACK, 0) : number.start()]
    if number["scale"] or _PART_OF_MORE.search(before):
        return True
    if _TO_WORK_OUT.search(_term_around(plain, number)):
        return True
    return number["whole"] is None and _SPACED_THOUSANDS.search(before + number["body"]) is not None


def _term_around(plain: str, number: re.Match[str]) -> str:
    """Return the text without a gap around the number, on its side of an equals sign."""
    before = _TERM_ENDS.split(plain[max(number.start() - _MAX_CHARACTERS, 0) : number.start()])
    after = _TERM_ENDS.split(plain[number.end() : number.end() + _MAX_CHARACTERS])
    return before[-1] + number[0] + after[0]


def _plain_text(text: str) -> str:
    """Return `text` with one spelling of each sign that _NUMBER looks for."""
    plain = _THIN_SPACES.sub(",", _VULGAR.sub(" ", text))
    plain = _RAISED.sub(lambda match: "^" + match[0].translate(_FROM_RAISED), plain)
    plain = unicodedata.normalize("NFKC", plain).translate(_MINUS)
    for pattern, replacement in _REWRITES:
        plain = pattern.sub(replacement, plain)
    return plain


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MAX_CHARACTERS:
        return None
    numerator, slash, denominator = match["body"].partition("/")
    top, bottom = _plain_value(numerator), _plain_value(denominator) if slash else Fraction(1)
    if top is None or not bottom:
        return None
    return Fraction(match["whole"] or 0) + top / bottom


def _plain_value(text: str) -> Fraction | None:
    if _PLAIN.fullmatch(text) is None:
        return None
    return Fraction(text.replace(",", ""))
