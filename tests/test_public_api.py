"""The public surface of the library: short, sorted, explained and documented."""

from pathlib import Path

import hybridserve_llm

API_PAGE = (Path(__file__).parents[1] / "docs/api.md").read_text(encoding="utf-8")
MAX_NAMES = 20


def documented_names() -> list[str]:
    section = API_PAGE.partition("## Public Python names")[2]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [row.split("`")[1] for row in rows]


def test_the_names_are_sorted_and_few() -> None:
    names = hybridserve_llm.__all__
    assert list(names) == sorted(names)
    assert len(set(names)) == len(names) <= MAX_NAMES


def test_every_name_has_a_docstring_of_its_own() -> None:
    missing = [
        name
        for name in hybridserve_llm.__all__
        if name != "__version__" and not getattr(hybridserve_llm, name).__doc__
    ]
    assert missing == []


def test_every_name_is_on_the_page_and_no_other() -> None:
    assert documented_names() == list(hybridserve_llm.__all__)
