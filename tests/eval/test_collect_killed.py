"""`hs-eval collect` in a process of its own, killed in the middle: nothing lost, nothing twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eval.recorded.attempts import read_attempts

N = 30


class Command:
    """The command line, and the file that it writes."""

    def __init__(self, folder: Path, cascade: Any) -> None:
        prompts = folder / "prompts.jsonl"
        lines = [
            {"prompt": f"q{i}", "id": f"q{i}", "reference": f"big says q{i}"} for i in range(N)
        ]
        prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.attempts = folder / "attempts.jsonl"
        self.words = [sys.executable, "-m", "eval.cli", "collect", str(prompts), "--json"]
        self.words += ["--grader", "exact", "--concurrency", "3", "--base-url", cascade.base_url]
        self.words += ["--attempts", str(self.attempts)]
        self.cascade = cascade

    def killed_after(self, n_requests: int, by: signal.Signals) -> None:
        """Runs until so many were answered and one more waits; then ends it by a signal."""
        self.cascade.is_holding.clear()
        self.cascade.hold_after = len(self.cascade.bodies) + n_requests
        process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert self.cascade.is_holding.wait(timeout=60)
        os.kill(process.pid, by)
        process.wait(timeout=60)
        self.cascade.hold_after = None

    def whole_lines(self) -> list[Any]:
        """The attempts that are in the file as whole lines."""
        return [json.loads(line) for line in self.attempts.read_bytes().split(b"\n")[1:-1]]


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_a_killed_collection_loses_nothing_and_repeats_nothing(
    cascade: Any, tmp_path: Path, by: signal.Signals
) -> None:
    command = Command(tmp_path, cascade)
    for n_requests in (20, 25):  # in the middle of the first tier, then of the second
        command.killed_after(n_requests, by)
    kept = command.whole_lines()
    # Of 45 answered requests at most the three at hand each time were not yet written down.
    assert 45 - 2 * 3 <= len(kept) <= 45
    cascade.bodies.clear()
    done = subprocess.run(command.words, capture_output=True, check=True)
    small, big = json.loads(done.stdout)["tiers"]
    assert (small["n_answered"], big["n_answered"], big["accuracy"]) == (N, N, 1)
    lines = command.whole_lines()
    assert lines[: len(kept)] == kept  # as they were
    seen = Counter((line["query_id"], line["tier"]) for line in lines)
    assert seen == {(f"q{i}", tier): 1 for i in range(N) for tier in ("small", "big")}
    # What was asked now is what was not there, and nothing else.
    there = {(line["tier"], line["query_id"]) for line in kept}
    missing = {(tier, f"q{i}") for tier in ("small", "big") for i in range(N)} - there
    assert Counter(cascade.asked) == dict.fromkeys(missing, 1)


@pytest.mark.slow
def test_a_line_that_a_kill_tore_is_asked_again(cascade: Any, tmp_path: Path) -> None:
    command = Command(tmp_path, cascade)
    subprocess.run(command.words, capture_output=True, check=True)
    whole = command.attempts.read_bytes()
    command.attempts.write_bytes(whole[:-40])  # the last line, torn
    cascade.bodies.clear()
    subprocess.run(command.words, capture_output=True, check=True)
    assert len(cascade.bodies) == 1
    assert len(command.whole_lines()) == 2 * N
    assert len(read_attempts(command.attempts).by_question) == N
