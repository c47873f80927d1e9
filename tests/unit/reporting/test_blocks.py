"""Pieces of a report: text is shown as it is, in HTML and Markdown; numbers as readers say them."""

import io

import pytest
from rich.console import Console

from hybridserve_llm.reporting.blocks import (
    Bullets,
    Drawing,
    Paragraph,
    ReportBlock,
    Section,
    Table,
    in_markdown,
    print_blocks,
)
from hybridserve_llm.reporting.readable import (
    decimal,
    four_digits,
    or_dash,
    percent,
    percent_of,
    percent_range,
    points,
    points_range,
    reversed_range,
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
    assert decimal(0.12345) == "0.123"
    assert four_digits(0.0123456) == "0.01235"


def test_what_cannot_be_told_is_said_in_words() -> None:
    assert percent(None) == percent_range(None) == points_range(None) == decimal(None)
    assert percent(None) == "not enough"
    assert percent_of(1, 0) == "unknown"


def shown(*blocks: ReportBlock) -> str:
    file = io.StringIO()
    print_blocks(blocks, Console(width=40, file=file, highlight=False))
    return file.getvalue()


def test_a_terminal_shows_text_as_it_is() -> None:
    assert shown(Paragraph("see [bold]a[/bold]"), Bullets(("one", "[two]"))) == (
        "see [bold]a[/bold]\none\n[two]\n"
    )


def test_a_terminal_breaks_long_lines_but_those_that_must_stay_whole() -> None:
    path = "Written: /a/very/long/folder/name/and/a/file.html"  # 49 characters, 40 fit
    assert shown(Paragraph(path, keeps_line=True)) == path + "\n"
    assert shown(Paragraph("word " * 10)).count("\n") == 2


def test_a_terminal_shows_a_table_with_its_caption_and_numbers_to_the_right() -> None:
    table = Table(caption="[x] costs", header=("tier", "cost"), rows=(("small", "1"), ("b", "20")))
    lines = [line.rstrip() for line in shown(table).splitlines()]
    assert lines == ["[x] costs", " tier   cost", " small     1", " b        20"]


def test_a_section_in_a_terminal_is_its_heading_and_its_blocks() -> None:
    drawing = Drawing(svg="<svg></svg>", title="Curve", caption="Look.", description="Up.")
    assert shown(Section("A", (Paragraph("b"), drawing))) == (
        "A\nb\nCurve (drawn in the HTML page): Up.\n"
    )


def test_columns_make_the_header_and_the_cells() -> None:
    table = Table.of([1, 2], "squares", {"n": str, "n * n": lambda n: str(n * n)})
    assert table == Table(caption="squares", header=("n", "n * n"), rows=(("1", "1"), ("2", "4")))


def test_an_unknown_value_is_a_dash() -> None:
    assert (or_dash(None), or_dash(0.12345), or_dash(3.14159, ".1f")) == ("-", "0.1235", "3.1")


def test_the_range_of_a_negative_is_turned_round() -> None:
    assert reversed_range((-0.1, 0.3)) == (-0.3, 0.1)
    assert reversed_range(None) is None
