"""The day-0 score: hand-worked values, and every way in which no score may be given."""

import math

import pytest
from builders import chat_request

from hybridserve_llm.confidence.day_zero import DayZeroScorer, day_zero_score
from hybridserve_llm.values.answers import Answer, Completion, ToolCall, Usage

END_THINK = 6


def completion(*answers: Answer, tokens: int | None = None) -> Completion:
    return Completion(answers=answers, usage=Usage(completion_tokens=tokens), body={})


def answer(**changes: object) -> Answer:
    values: dict[str, object] = {"text": "42", "finish_reason": "stop", "logprobs": (-0.1, -0.2)}
    return Answer(**{**values, **changes})  # type: ignore[arg-type]  # test values


def test_sum_of_a_short_answer() -> None:
    # -0.5 - 0.25 - 0.125 = -0.875, exact in binary.
    assert day_zero_score((-0.5, -0.25, -0.125)) == -0.875


def test_a_long_answer_is_scored_by_its_low_quantile() -> None:
    # 40 tokens: rank ceil(0.05 * 40) = 2, the second smallest, -2; their sum would be -42.
    assert day_zero_score((-3.0, -2.0) + (-1.0,) * 38) == -2.0


def test_tokens_that_a_grammar_forced_do_not_raise_the_quantile() -> None:
    # 20 free tokens: rank ceil(0.05 * 20) = 1, -3. With the 60 forced zeros rank 4 would be -1.
    assert day_zero_score((-3.0,) + (-1.0,) * 19 + (0.0,) * 60) == -3.0


def test_an_answer_of_forced_tokens_alone_scores_zero() -> None:
    assert day_zero_score((0.0,) * 40) == 0.0


def json_completion(*values: float) -> Completion:
    """`[1,1,…]` with the given log-probabilities of its values, and -9 for all else."""
    pieces = [b"["] + [b"1", b","] * len(values)
    pieces[-1] = b"]"
    logprobs = [-9.0] * len(pieces)
    logprobs[1::2] = values
    return completion(
        answer(text=b"".join(pieces).decode(), logprobs=tuple(logprobs), token_bytes=tuple(pieces))
    )


def test_json_is_scored_on_its_values_alone() -> None:
    assessment = DayZeroScorer().assess(
        chat_request(json_answer=True), json_completion(-0.5, -0.25)
    )
    assert assessment.score == -0.75


def test_a_certain_value_of_long_json_counts() -> None:
    # 40 values: rank ceil(0.05 * 40) = 2, the second smallest, -1. Were the 38 zeros taken for
    # forced tokens, as where the values are not known, it would be rank 1 of 2, -2.
    values = (-2.0, -1.0, *(0.0,) * 38)
    assert (
        DayZeroScorer().assess(chat_request(json_answer=True), json_completion(*values)).score
        == -1.0
    )
    assert day_zero_score(values) == -2.0


def test_a_change_of_what_is_scored_is_a_new_version() -> None:
    assert DayZeroScorer().name == "day-0/2"


def test_several_answers_are_as_good_as_the_worst() -> None:
    both = completion(answer(logprobs=(-0.25,)), answer(logprobs=(-0.5, -0.25)))
    assert DayZeroScorer().assess(chat_request(), both).score == -0.75


def test_confidence_is_never_given_without_calibration() -> None:
    assert DayZeroScorer().assess(chat_request(), completion(answer())).confidence is None


def test_reads_the_sampled_token_alone() -> None:
    assert DayZeroScorer().top_logprobs(chat_request()) == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (answer(logprobs=None), "no log-probabilities"),
        (answer(logprobs=()), "no log-probabilities"),
        (answer(logprobs=(-0.1, None)), "has no log-probability"),
        (answer(logprobs=(-0.1, math.nan)), "has no log-probability"),
        (answer(text="  \n"), "empty"),
        (answer(finish_reason="length"), "cut by a limit"),
        (answer(tool_calls=(ToolCall(name="rm", arguments="{}"),)), "not offered: 'rm'"),
    ],
)
def test_no_score_without_evidence(bad: Answer, reason: str) -> None:
    assessment = DayZeroScorer().assess(chat_request(), completion(bad))
    assert assessment.score is None
    assert reason in (assessment.reason or "")


def test_no_answer_at_all_has_no_score() -> None:
    assert DayZeroScorer().assess(chat_request(), completion()).score is None


def test_an_answer_cut_at_the_clients_own_limit_is_scored_as_it_is() -> None:
    cut = completion(answer(finish_reason="length"), tokens=2)
    assert DayZeroScorer().assess(chat_request(max_output_tokens=2), cut).score == pytest.approx(
        -0.3
    )


def test_an_answer_cut_before_the_clients_limit_has_no_score() -> None:
    cut = completion(answer(finish_reason="length"), tokens=2)
    assert DayZeroScorer().assess(chat_request(max_output_tokens=50), cut).score is None


def test_json_is_checked_before_it_is_scored() -> None:
    scorer, wanted = DayZeroScorer(), chat_request(json_answer=True)
    assert scorer.assess(wanted, completion(answer(text='{"a": 1}'))).score is not None
    broken = scorer.assess(wanted, completion(answer(text='{"a": ')))
    assert (broken.score, broken.reason) == (None, "the answer is not the JSON that was asked for")


def test_an_offered_tool_is_scored_and_its_arguments_must_parse() -> None:
    offered = chat_request(tool_names=frozenset({"add"}))
    good = answer(text="", tool_calls=(ToolCall(name="add", arguments='{"a": 1}'),))
    bad = answer(text="", tool_calls=(ToolCall(name="add", arguments='{"a"'),))
    assert DayZeroScorer().assess(offered, completion(good)).score is not None
    assert DayZeroScorer().assess(offered, completion(bad)).score is None


def test_reasoning_is_not_scored() -> None:
    scorer = DayZeroScorer(is_reasoning=True, reasoning_end_id=END_THINK)
    thought = answer(logprobs=(-9.0, -9.0, -0.5, -0.25), token_ids=(50, END_THINK, 51, 52))
    assert scorer.assess(chat_request(), completion(thought)).score == -0.75


@pytest.mark.parametrize(
    ("scorer", "token_ids"),
    [
        (DayZeroScorer(is_reasoning=True), (1, 2)),
        (DayZeroScorer(is_reasoning=True, reasoning_end_id=END_THINK), None),
        (DayZeroScorer(is_reasoning=True, reasoning_end_id=END_THINK), (1,)),
    ],
)
def test_reasoning_that_cannot_be_told_apart_gets_no_score(
    scorer: DayZeroScorer, token_ids: tuple[int, ...] | None
) -> None:
    assert scorer.assess(chat_request(), completion(answer(token_ids=token_ids))).score is None


def test_reasoning_without_an_answer_gets_no_score() -> None:
    scorer = DayZeroScorer(is_reasoning=True, reasoning_end_id=END_THINK)
    only_thought = answer(logprobs=(-1.0, -1.0), token_ids=(50, END_THINK))
    assert scorer.assess(chat_request(), completion(only_thought)).reason == "the answer is empty"
