"""Where published numbers come from, as a report tells it."""

import os

import pytest

from eval.reports.provenance import command_line, commit_of_project, this_machine


def test_a_command_line_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["cli.py", "report", "/home/me/run.jsonl", "--seed", "1"])
    assert command_line("hs-eval") == "hs-eval report run.jsonl --seed 1"


def test_the_machine_is_told_with_its_cores() -> None:
    assert this_machine().endswith(f", {os.cpu_count()} cores")


def test_a_commit_is_hexadecimal_and_marked_where_files_were_changed() -> None:
    commit = commit_of_project()
    assert commit is None or set(commit.removesuffix("+")) <= set("0123456789abcdef")
