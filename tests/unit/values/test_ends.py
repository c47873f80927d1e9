import pytest

from hybridserve_llm.errors import EngineFailed
from hybridserve_llm.values.ends import End, Ends, end_of, unfit_end


@pytest.mark.parametrize(
    ("finish_reason", "end"),
    [
        ("stop", End.WHOLE),
        ("tool_calls", End.WHOLE),
        ("function_call", End.WHOLE),
        ("length", End.CUT),
        ("content_filter", End.FILTERED),
        ("abort", End.BROKEN),
        ("error", End.BROKEN),
        (None, End.BROKEN),
        ("repetition", End.UNKNOWN),
        ("a word of next year", End.UNKNOWN),
        ("", End.UNKNOWN),
        ("STOP", End.UNKNOWN),
    ],
)
def test_only_listed_words_end_a_whole_answer(finish_reason, end):
    assert end_of(finish_reason) is end


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", "length", "content_filter"])
def test_an_answer_may_be_whole_cut_or_filtered(finish_reason):
    assert unfit_end(finish_reason) is None


@pytest.mark.parametrize("finish_reason", ["abort", "error", None, "repetition", "new"])
def test_an_answer_with_another_end_is_none_and_the_reason_names_it(finish_reason):
    reason = unfit_end(finish_reason)
    assert reason is not None
    assert str(finish_reason or "no finish_reason") in reason


def test_an_answer_is_whole_once_every_choice_has_ended():
    ends = Ends("small/0")
    ends.saw({0: None})
    ends.saw({0: "stop", 1: None})
    with pytest.raises(EngineFailed, match="engine small/0 did not end its answer"):
        ends.close()
    ends.saw({1: "length"})
    ends.close()


def test_an_ended_choice_stays_ended_when_more_of_it_comes():
    ends = Ends("e")
    ends.saw({0: "stop"})
    ends.saw({0: None})
    ends.close()


def test_an_answer_without_a_choice_is_the_engines_failure():
    with pytest.raises(EngineFailed, match="without a choice"):
        Ends("e").close()
