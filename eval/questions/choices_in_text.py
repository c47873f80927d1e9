r"""Which option of a multiple-choice question an answer settles on.

Tried in this order; the first that finds something decides:

1. the whole answer is a label (`B`, `(b)`, `**B.**`) or the text of one option;
2. the last statement of an answer: `Answer: B`, `the correct option is (B)`, `\boxed{B}`, also with
   an option's text; `B or C` names both;
3. the answer begins with a label (`B) Paris`), and no other line begins with another;
4. the labels and texts that it names anywhere, but for `not B`.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping

from hybridserve_llm.confidence.agreement import normal_form

_WRAPPERS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"[*`$]|\\[()\[\]]")
_STATEMENT = re.compile(
    r"""(?:\b(?:answer|choice|option)s?\ *(?:\ (?:is|are|would\ be|should\ be|must\ be)\b|[:=])
        \s*:?\s*(?:option\ |choice\ )? | \\boxed\s*(?=\{) | \banswer\s+(?=\())""",
    re.VERBOSE | re.IGNORECASE,
)
_ARTICLE_FOLLOWS = r"(?! (?!because|since|as|is|was|and|or)[a-z])"
"""`A` and `I` are English words too: `A dog` names no option, `A because …` does."""

_DENIAL = re.compile(r"(?:\bnot|n['\u2019]t)[\s(]+$", re.IGNORECASE)


def chosen_labels(answer: str, options: Mapping[str, str | None]) -> frozenset[str]:
    """The labels of the options that `answer` settles on: one, or none, or it leaves several open.

    Args:
        answer: What the model wrote.
        options: Label to text of the option; None where the text is not known.
    """
    text = _MARKUP.sub("", _WRAPPERS.sub(r"\1", unicodedata.normalize("NFKC", answer))).strip()
    finders = (_whole_answer, _last_statement, _first_line, _named)
    found = (frozenset(finder(text, options)) for finder in finders)
    return next((labels for labels in found if labels), frozenset())


def _whole_answer(text: str, options: Mapping[str, str | None]) -> Iterator[str]:
    bare = text.strip(" \t\n\"'()[]{}<>.,:;!").casefold()
    yield from (label for label in options if label.casefold() == bare)
    form = normal_form(text)
    if form is not None:
        yield from (label for label, said in options.items() if said and normal_form(said) == form)


def _last_statement(text: str, options: Mapping[str, str | None]) -> Iterator[str]:
    for statement in reversed(list(_STATEMENT.finditer(text))):
        tail = text[statement.end() :]
        first = re.match(rf"[\s(\[{{\"']*{_label(options)}", tail)
        if first is not None:
            yield first[1]
            yield from _alternatives(tail[first.end() :], options)
            return
        line = tail.strip().partition("\n")[0]
        labels = list(_whole_answer(line, options)) if line else []
        if labels:
            yield from labels
            return


def _alternatives(tail: str, options: Mapping[str, str | None]) -> Iterator[str]:
    """Labels that go on a list: `, C or D`; in `B, C is wrong` begins another sentence."""
    more = rf"[)\]\s]*(?:,|/|&|or\b|and\b)[\s(]*{_label(options)}(?!\s+(?:is|was|are|were)\b)"
    while match := re.match(more, tail):
        yield match[1]
        tail = tail[match.end() :]


def _first_line(text: str, options: Mapping[str, str | None]) -> Iterator[str]:
    label = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    opening = re.compile(rf"^[\s(\[\"']*({label})(?:[)\].:]|\s*[-\u2013\n]|\s*$)", re.MULTILINE)
    first = opening.match(text)
    labels = {match[1] for match in opening.finditer(text)}
    if first is not None and labels == {first[1]}:
        yield first[1]


def _named(text: str, options: Mapping[str, str | None]) -> Iterator[str]:
    found = [(match[1], match.start()) for match in re.finditer(_label(options), text)]
    folded = text.casefold()
    for label, said in options.items():
        pattern = rf"(?<!\w){re.escape(said.casefold())}(?!\w)" if said else r"(?!)"
        found += [(label, match.start()) for match in re.finditer(pattern, folded)]
    yield from (label for label, start in found if not _DENIAL.search(text[:start][-16:]))


def _label(options: Mapping[str, str | None]) -> str:
    """A pattern of a label that stands alone and is no word of the sentence."""
    words = [re.escape(label) for label in options if label in ("A", "I")]
    others = [re.escape(label) for label in sorted(options, key=len, reverse=True)]
    others = [label for label in others if label not in words]
    article = f"(?:{'|'.join(words)}){_ARTICLE_FOLLOWS}" if words else ""
    either = "|".join(filter(None, (article, "|".join(others))))
    return rf"(?<![\w'])({either})(?![\w'])"
