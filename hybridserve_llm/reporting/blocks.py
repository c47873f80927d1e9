"""Describe a report once, as blocks that can be drawn as HTML, as Markdown and in a terminal.

Text comes from outside (names of tiers, command lines), so every block escapes it. Only the SVG of
a `Drawing` is taken as it is.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

_MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]<|~$])")
ItemT = TypeVar("ItemT")


class ReportBlock(Protocol):
    """Represent a piece of a report."""

    def html(self) -> str:
        """Return the piece as HTML."""
        ...

    def markdown(self) -> str:
        """Return the piece as Markdown, without a newline at its end."""
        ...

    def rich(self) -> RenderableType:
        """Return the piece for a terminal."""
        ...


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Represent a paragraph of plain text; `print_blocks` breaks no line that `keeps_line`."""

    text: str
    is_headline: bool = False
    keeps_line: bool = False

    def html(self) -> str:
        """Return one `<p>`."""
        kind = ' class="headline"' if self.is_headline else ""
        return f"<p{kind}>{html.escape(self.text)}</p>"

    def markdown(self) -> str:
        """Return one paragraph, bold where it is the headline."""
        text = in_markdown(self.text)
        return f"**{text}**" if self.is_headline else text

    def rich(self) -> Text:
        """Return the text, in as many lines as it needs."""
        return Text(self.text, overflow="fold")


@dataclass(frozen=True, slots=True)
class Bullets:
    """Represent a list of sentences."""

    items: tuple[str, ...]

    def html(self) -> str:
        """Return one `<ul>`."""
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in self.items)}</ul>"

    def markdown(self) -> str:
        """Return one line for each item."""
        return "\n".join(f"* {in_markdown(item)}" for item in self.items)

    def rich(self) -> Group:
        """Return the sentences below each other, without a mark."""
        return Group(*(Text(item, overflow="fold") for item in self.items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Represent rows of cells under `header`: the first cell names its row, the others are numbers.

    `is_text` says that the others are words.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False

    @classmethod
    def of(
        cls,
        items: Iterable[ItemT],
        caption: str,
        columns: Mapping[str, Callable[[ItemT], str]],
        *,
        is_text: bool = False,
    ) -> Self:
        """Return a table of one row an item; `columns` give the cell of an item by heading."""
        rows = tuple(tuple(cell(item) for cell in columns.values()) for item in items)
        return cls(caption=caption, header=tuple(columns), rows=rows, is_text=is_text)

    def html(self) -> str:
        """Return one `<table>` with a caption and scoped headers; a narrow page scrolls it."""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = "\n".join(f"<tr>{_html_cells(row)}</tr>" for row in self.rows)
        kind = ' class="words"' if self.is_text else ""
        return (
            f'<div class="table"><table{kind}>\n<caption>{html.escape(self.caption)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def markdown(self) -> str:
        """Return the caption and a pipe table, numbers aligned to the right."""
        rule = ("---", *("---" if self.is_text else "---:" for _ in self.header[1:]))
        lines = [_markdown_row(self.header), f"| {' | '.join(rule)} |"]
        lines += [_markdown_row(row) for row in self.rows]
        return "\n".join([f"{in_markdown(self.caption)}:", "", *lines])

    def rich(self) -> RichTable:
        """Return the table without rules, numbers aligned to the right."""
        table = RichTable(box=None, header_style="bold")
        table.title, table.title_justify = Text(self.caption), "left"
        for i, heading in enumerate(self.header):
            is_number = i > 0 and not self.is_text
            table.add_column(Text(heading), justify="right" if is_number else "left")
        for row in self.rows:
            table.add_row(*(Text(cell, overflow="fold") for cell in row))
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Represent a figure; the caption says what to see, the description what is drawn.

    `svg` carries title and description of its own.
    """

    svg: str
    title: str
    caption: str
    description: str

    def html(self) -> str:
        """Return one `<figure>`."""
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return f"<figure>\n{self.svg}\n{caption}\n</figure>"

    def markdown(self) -> str:
        """Return title and description; the drawing itself is in the HTML page."""
        return f"*{in_markdown(self.title)}* (drawn in the HTML page): " + in_markdown(
            self.description
        )

    def rich(self) -> Text:
        """Return title and description."""
        return Text(f"{self.title} (drawn in the HTML page): {self.description}")


@dataclass(frozen=True, slots=True)
class Section:
    """Represent a heading and the blocks under it."""

    heading: str
    blocks: tuple[ReportBlock, ...]

    def html(self) -> str:
        """Return one `<section>`."""
        blocks = "\n".join(block.html() for block in self.blocks)
        return f"<section>\n<h2>{html.escape(self.heading)}</h2>\n{blocks}\n</section>"

    def markdown(self) -> str:
        """Return the heading and the blocks, an empty line between any two."""
        return "\n\n".join(
            [f"## {in_markdown(self.heading)}", *(block.markdown() for block in self.blocks)]
        )

    def rich(self) -> Group:
        """Return the heading and the blocks below each other."""
        return Group(Text(self.heading, style="bold"), *(block.rich() for block in self.blocks))


def print_blocks(blocks: Iterable[ReportBlock], console: Console) -> None:
    """Print the blocks below each other."""
    for block in blocks:
        keeps_line = isinstance(block, Paragraph) and block.keeps_line
        console.print(block.rich(), soft_wrap=keeps_line)


def in_markdown(text: str) -> str:
    """Return plain text as Markdown that shows it unchanged, on one line."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def _html_cells(row: tuple[str, ...]) -> str:
    name, *cells = (html.escape(cell) for cell in row)
    return f'<th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells)


def _markdown_row(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(in_markdown(cell) for cell in row)} |"
