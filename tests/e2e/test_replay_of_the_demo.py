"""A replay decides as the server did, request by request, on real engines over HTTP."""

import csv
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import pytest

from eval.cli import main
from eval.recorded.attempts import RecordedAttempt
from eval.recorded.attempts_file import AttemptsFile
from eval.recorded.measured_run import CASCADE, read_run
from launch.demo.check import running_demo
from launch.demo.export import line_of
from launch.demo.questions import Question, distinct_questions

pytestmark = pytest.mark.engine

N_QUESTIONS = 60
CERTIFICATE = Path(__file__).parents[2] / "launch/demo/certificate.json"


@dataclass(frozen=True)
class Recorded:
    """A measured run of the demo, and the ledgers of the same questions asked with `assess`."""

    run: Path
    ledgers: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("replay")
    questions = list(itertools.islice(distinct_questions("test", seed=23), N_QUESTIONS))
    prompts, run = folder / "prompts.jsonl", folder / "run.jsonl"
    prompts.write_bytes(b"".join(line_of(question, "test") for question in questions))
    with running_demo("--run-folder", str(folder / "launch")) as base_url:
        arguments = [str(prompts), "--base-url", base_url, "--run", str(run), "--idle", "1"]
        assert main(["measure", *arguments, "--sampling", '{"temperature": 0}']) == 0
        with openai.OpenAI(base_url=base_url, api_key="none") as client:
            ledgers = {question.key: ledger_of(client, question) for question in questions}
    return Recorded(run, ledgers)


def ledger_of(client: openai.OpenAI, question: Question) -> dict[str, Any]:
    """What the cascade decided, with the features of every answer that it decided on."""
    completion = client.chat.completions.create(
        model="hybridserve",
        messages=[{"role": "user", "content": question.prompt}],
        temperature=0,
        extra_body={"hybridserve": {"assess": True}},
    )
    ledger: dict[str, Any] = completion.model_extra["hybridserve"]
    return ledger


def test_the_very_answers_that_the_server_decided_on_are_decided_alike(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the bit: scores and features go through JSON unchanged, and no tie is broken."""
    run = read_run(recorded.run)
    path, decisions = tmp_path / "attempts.jsonl", tmp_path / "decisions.csv"
    with AttemptsFile(path, run.header.asked) as file:
        for by_tier in run.attempts().by_question.values():
            for attempt in by_tier.values():
                file.add(as_served(attempt, recorded.ledgers[attempt.query_id]))
    arguments = [str(path), "--certificate", str(CERTIFICATE), "--decisions", str(decisions)]
    assert main(["replay", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_questions"] == N_QUESTIONS
    ways: dict[str, list[tuple[str, str]]] = {}
    with decisions.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            ways.setdefault(row["query_id"], []).append((row["tier"], row["decision"]))
    served = {
        query_id: [(one["tier"], one["decision"]) for one in ledger["attempts"]]
        for query_id, ledger in recorded.ledgers.items()
    }
    assert ways == served
    assert {way[-1][0] for way in served.values()} == {"small", "medium", "giant"}


def as_served(attempt: RecordedAttempt, ledger: dict[str, Any]) -> RecordedAttempt:
    """The attempt as the cascade's ledger tells it; as it was recorded of a tier it did not ask."""
    for one in ledger["attempts"]:
        if one["tier"] == attempt.tier:
            return replace(
                attempt,
                score=one["score"],
                features=one["features"],
                answer_key=one["answer_key"],
            )
    return attempt


def test_answers_of_another_batch_are_decided_alike_where_their_numbers_are_the_same(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiers' own blocks, 16 at a time, beside what the cascade decided, 16 at a time.

    Where a batch of another size sums in another order, risks differ, and one next to its threshold
    may fall to the other side; where they do not, no decision may differ.
    """
    arguments = [str(recorded.run), "--certificate", str(CERTIFICATE), "--json"]
    assert main(["report", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    comparison = found["comparison"]
    assert comparison["n"] == found["n"] >= 50
    assert comparison["n_unexplained"] == 0
    differing = comparison["n"] - comparison["n_same_numbers"]
    assert comparison["n_same_way"] >= comparison["n"] - differing
    assert found["unit"] in ("CPU-s", "J")
    assert found["total"]["alone"] > 0


def test_the_certificate_covers_what_was_asked(recorded: Recorded) -> None:
    answers = [a for block in read_run(recorded.run).of_way(CASCADE) for a in block.answers]
    assert {answer.certified for answer in answers} == {True}
