"""Put sections together to an HTML page that needs no other file, and to its Markdown twin."""

import html
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from hybridserve_llm.reporting.blocks import Section


def html_page(title: str, sections: Sequence[Section], data: Mapping[str, Any]) -> str:
    """Return the page; `data` is in it as JSON that no script reads."""
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=html.escape(title),
        sections="\n".join(section.html() for section in sections),
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """Return the same report without drawings and data."""
    return "\n\n".join([f"# {title}", *(section.markdown() for section in sections)]) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Put a whole new file in the place of `path`, so that no reader meets half of one.

    Raises:
        OSError: It cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
