"""Figures in one style, as SVG that can stand in a page beside others.

Only matplotlib's object interface is used: no pyplot, no display, nothing that outlives a call.
"""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

GREY = "#6b6b6b"
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.0,
    "figure.constrained_layout.use": True,
    "font.size": 10.0,
    "grid.color": "#e3e3e3",
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "svg.hashsalt": "hybridserve",  # the same numbers give the same file
    "text.parse_math": False,  # a "$" in a tier's name is a "$"
}


@contextmanager
def drawn(width_in: float, height_in: float) -> Iterator[Figure]:
    """An empty figure, inches; the style holds inside the block, whatever a matplotlibrc says."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width_in, height_in))
        FigureCanvasSVG(figure)
        yield figure


def in_percent(*axes: Axis) -> None:
    """Labels the ticks of shares as percentages."""
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def write_across(axes: Axes, text: str) -> None:
    """Words in the middle, in place of a drawing."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def to_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """An `<svg>` element for a page: own ids, a title and a description, no metadata or script."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    body = buffer.getvalue()
    body = body[body.index("<svg") :].strip()
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r'(<path id="[^"]*" transform="[^"]*")(?=/>)', r'\1 d="M 0 0"', body)  # a space
    head, content = body.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    return (
        f'<svg {view_box.group() if view_box else ""} role="img" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>{content}'
    )
