"""Pieces of a report: text is shown as it is, in HTML and Markdown; numbers as readers say them."""

import pytest

from eval.reports.blocks import Bullets, Drawing, Paragraph, Section, Table, in_markdown
from eval.reports.readable import (
    cost,
    number,
    percent,
    percent_of,
    percent_range,
    points,
    points_range,
)

TABLE = Table(
    caption="Tiers & costs", header=("tier", "cost"), rows=(("a|b", "1"), ("<i>c</i>", "2"))
)


def test_html_escapes_text() -> None:
    assert Paragraph("1 < 2 & 3").html() == "<p>1 &lt; 2 &amp; 3</p>"
    assert Paragraph("x", is_headline=True).html() == '<p class="headline">x</p>'
    assert Bullets(("a", "<b>")).html() == "<ul><li>a</li><li>&lt;b&gt;</li></ul>"
    assert Section("A & B", ()).html().startswith("<section>\n<h2>A &amp; B</h2>")


def test_html_table_has_a_caption_and_scoped_headers() -> None:
    html = TABLE.html()
    assert "<caption>Tiers &amp; costs</caption>" in html
    assert '<th scope="col">tier</th><th scope="col">cost</th>' in html
    assert '<tr><th scope="row">a|b</th><td>1</td></tr>' in html
    assert '<tr><th scope="row">&lt;i&gt;c&lt;/i&gt;</th><td>2</td></tr>' in html


def test_markdown_table() -> None:
    assert TABLE.markdown().splitlines() == [
        "Tiers & costs:",
        "",
        "| tier | cost |",
        "| --- | ---: |",
        r"| a\|b | 1 |",
        r"| \<i>c\</i> | 2 |",
    ]


def test_markdown_of_the_other_pieces() -> None:
    assert Paragraph("x_y", is_headline=True).markdown() == r"**x\_y**"
    assert Bullets(("a", "b")).markdown() == "* a\n* b"
    drawing = Drawing(svg="<svg></svg>", title="Curve", caption="Look.", description="It rises.")
    assert drawing.markdown() == "*Curve* (drawn in the HTML page): It rises."
    assert Section("A", (Paragraph("b"), Paragraph("c"))).markdown() == "## A\n\nb\n\nc"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a b"),
        ("[x](y)", r"\[x\](y)"),
        ("*a* `b` $c$ ~d~ \\", r"\*a\* \`b\` \$c\$ \~d\~ " + "\\\\"),
        ("1b > 8b", "1b > 8b"),
    ],
)
def test_text_in_markdown(text: str, shown: str) -> None:
    assert in_markdown(text) == shown


def test_numbers_in_readers_units() -> None:
    assert percent(0.8412) == "84.1 %"
    assert percent_range((0.8238, 0.8561)) == "82.4 to 85.6 %"
    assert percent_of(1, 8) == "12.5 %"
    assert points(-0.0042) == "-0.42 points"
    assert points(-1e-9) == "0.00 points"
    assert points_range((-0.009, 0.0006)) == "-0.90 to 0.06 points"
    assert number(0.12345) == "0.123"
    assert cost(0.0123456) == "0.01235"


def test_what_cannot_be_told_is_said_in_words() -> None:
    assert percent(None) == percent_range(None) == points_range(None) == number(None)
    assert percent(None) == "not enough"
    assert percent_of(1, 0) == "unknown"
