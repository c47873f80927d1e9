"""Traces in Azure's form: times, lengths, and the line at fault."""

from pathlib import Path

import pytest

from eval.simulation.azure_trace import read_azure_trace
from hybridserve_llm.errors import ConfigError

HEADING = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def trace(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_dates_with_seven_digits_and_columns_in_any_order(tmp_path: Path) -> None:
    text = (
        "GeneratedTokens,TIMESTAMP,ContextTokens,more\n"
        "109,2023-11-16 18:15:50.9951690,396,x\n"
        "44,2023-11-16 18:15:46.6805900+00:00,374,x\n"
    )
    found = read_azure_trace(trace(tmp_path, text))
    assert found.arrival_s.tolist() == pytest.approx([0.0, 4.314579])
    assert found.prompt_tokens.tolist() == [374, 396]
    assert found.output_tokens.tolist() == [44, 109]


def test_seconds_are_times_too(tmp_path: Path) -> None:
    found = read_azure_trace(trace(tmp_path, f"{HEADING}5.5,1,2\n7,3,4\n"))
    assert found.arrival_s.tolist() == [0.0, 1.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("TIMESTAMP,ContextTokens\n", "has no column GeneratedTokens; it needs"),
        (HEADING, "has a heading and no requests; at least one is needed"),
        (f"{HEADING}1,2,3\n1,many,3\n", "line 3: ContextTokens is 'many'; a whole number from 0"),
        (f"{HEADING}1,2,-3\n", "line 2: GeneratedTokens is '-3'; a whole number from 0"),
        (f"{HEADING}1,2.5,3\n", "line 2: ContextTokens is '2.5'"),
        (f"{HEADING}1,2\n", "line 2: GeneratedTokens is ''"),
        (f"{HEADING}1,{'9' * 5000},3\n", "line 2: ContextTokens is '999"),
        (f"{HEADING}noon,2,3\n", "line 2: TIMESTAMP is 'noon'; a date such as"),
        (f"{HEADING}nan,2,3\n", "line 2: TIMESTAMP is 'nan'"),
    ],
)
def test_the_line_at_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_azure_trace(trace(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: No such file"):
        read_azure_trace(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="not CSV in UTF-8"):
        read_azure_trace(tmp_path / "binary.csv")
