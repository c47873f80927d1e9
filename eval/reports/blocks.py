"""What a written report is made of, each piece as HTML and as Markdown.

Text comes from outside (names of tiers, command lines), so every piece escapes it; only the SVG of
a `Drawing`, which `eval/reports/calibration_svg.py` makes, is taken as it is.
"""

import html
import re
from dataclasses import dataclass
from typing import Protocol

_MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]<|~$])")


class Block(Protocol):
    """A piece of a report."""

    def html(self) -> str:
        """The piece as HTML."""
        ...

    def markdown(self) -> str:
        """The piece as Markdown, without a newline at its end."""
        ...


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str
    is_headline: bool = False

    def html(self) -> str:
        """One `<p>`."""
        kind = ' class="headline"' if self.is_headline else ""
        return f"<p{kind}>{html.escape(self.text)}</p>"

    def markdown(self) -> str:
        """One paragraph, bold where it is the headline."""
        text = in_markdown(self.text)
        return f"**{text}**" if self.is_headline else text


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]

    def html(self) -> str:
        """One `<ul>`."""
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in self.items)}</ul>"

    def markdown(self) -> str:
        """One line for each item."""
        return "\n".join(f"* {in_markdown(item)}" for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under `header`; the first cell of a row names it, the others are numbers.

    `is_text` says that they are words.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False

    def html(self) -> str:
        """One `<table>` with a caption and scoped headers; it scrolls where the page is narrow."""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = "\n".join(f"<tr>{_html_cells(row)}</tr>" for row in self.rows)
        kind = ' class="words"' if self.is_text else ""
        return (
            f'<div class="table"><table{kind}>\n<caption>{html.escape(self.caption)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def markdown(self) -> str:
        """The caption and a pipe table, numbers aligned to the right."""
        rule = ("---", *("---" if self.is_text else "---:" for _ in self.header[1:]))
        lines = [_markdown_row(self.header), f"| {' | '.join(rule)} |"]
        lines += [_markdown_row(row) for row in self.rows]
        return "\n".join([f"{in_markdown(self.caption)}:", "", *lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure; the caption says what to see, the description tells it to who cannot see it.

    `svg` carries title and description of its own.
    """

    svg: str
    title: str
    caption: str
    description: str

    def html(self) -> str:
        """One `<figure>`."""
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return f"<figure>\n{self.svg}\n{caption}\n</figure>"

    def markdown(self) -> str:
        """Title and description: the drawing is in the page."""
        return f"*{in_markdown(self.title)}* (drawn in the HTML page): " + in_markdown(
            self.description
        )


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    heading: str
    blocks: tuple[Block, ...]

    def html(self) -> str:
        """One `<section>`."""
        blocks = "\n".join(block.html() for block in self.blocks)
        return f"<section>\n<h2>{html.escape(self.heading)}</h2>\n{blocks}\n</section>"

    def markdown(self) -> str:
        """The heading and the blocks, an empty line between any two."""
        return "\n\n".join(
            [f"## {in_markdown(self.heading)}", *(block.markdown() for block in self.blocks)]
        )


def in_markdown(text: str) -> str:
    """Plain text as Markdown that shows it unchanged, on one line."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def _html_cells(row: tuple[str, ...]) -> str:
    name, *cells = (html.escape(cell) for cell in row)
    return f'<th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells)


def _markdown_row(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(in_markdown(cell) for cell in row)} |"
