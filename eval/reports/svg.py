"""Draw figures in one style, as SVG that can stand in a page together with others.

Only matplotlib's object interface is used: no pyplot, no display, nothing that outlives a call.
"""

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from hybridserve_llm.reporting.blocks import Drawing

# Okabe and Ito's colours, which the colour-blind can tell apart. Markers, hatches and line styles
# differ too, so that nothing hangs on colour.
BLACK, BLUE, SKY, GREEN = "#000000", "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE, BROWN = "#E69F00", "#D55E00", "#CC79A7", "#6b4a00"
GREY = "#6b6b6b"
WIDTH_IN = 7.6
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Hold what is said of a drawing: see `Drawing`."""

    title: str
    caption: str
    description: str


def drawn(name: str, height_in: float, draw: Callable[[Figure], None], words: Words) -> Drawing:
    """Return what `draw` puts on an empty figure; no matplotlibrc changes the style.

    `name` begins every id of the SVG.
    """
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH_IN, height_in))
        FigureCanvasSVG(figure)
        draw(figure)
        svg = _to_svg(figure, name, words)
    return Drawing(svg=svg, title=words.title, caption=words.caption, description=words.description)


def legend_below(figure: Figure, n_columns: int = 2) -> None:
    """Put the legend of everything that has a label under the axes."""
    figure.legend(loc="outside lower center", ncols=n_columns)


def scale_logarithmically(axes: Axes, *, is_wide: bool = False) -> None:
    """Scale the horizontal axis by decades, with plain numbers; `is_wide` spans many of them."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def in_percent(*axes: Axis) -> None:
    """Label the ticks of shares as percentages."""
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def write_across(axes: Axes, text: str) -> None:
    """Write words in the middle, in place of a drawing."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def _to_svg(figure: Figure, name: str, words: Words) -> str:
    """Return an `<svg>` element with ids of its own, title and description, and no script."""
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
        f'<title id="{name}-title">{html.escape(words.title)}</title>'
        f'<desc id="{name}-desc">{html.escape(words.description)}</desc>{content}'
    )
