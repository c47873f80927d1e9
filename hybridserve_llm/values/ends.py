"""Follow an answer to its end, and say if the answer is known to be whole.

An engine ends each choice with a word, its `finish_reason`. The words that stand for a whole answer
are a closed list. What an engine did to the answer (`abort`, `error`, no word at all) makes another
replica answer. What the model or a filter did, and every word that is not listed, makes a tier
above answer.

Sources: OpenAI's reference of chat completions (`stop`, `length`, `tool_calls`, `function_call`,
`content_filter`); `FINISH_REASON_STRINGS` of vLLM 0.32 (`stop`, `length`, `abort`, `error`,
`repetition`).
"""

from collections.abc import Mapping
from enum import Enum, auto

from hybridserve_llm.errors import EngineFailed


class End(Enum):
    """Name what the end of a choice says about it.

    WHOLE: the model ended it. CUT: a limit of tokens ended it. FILTERED: a filter took the rest.
    BROKEN: the engine gave it up, or never ended it. UNKNOWN: any other word.
    """

    WHOLE = auto()
    CUT = auto()
    FILTERED = auto()
    BROKEN = auto()
    UNKNOWN = auto()


_ENDS: Mapping[str | None, End] = {
    "stop": End.WHOLE,
    "tool_calls": End.WHOLE,
    "function_call": End.WHOLE,
    "length": End.CUT,
    "content_filter": End.FILTERED,
    "abort": End.BROKEN,
    "error": End.BROKEN,
    None: End.BROKEN,
}


def end_of(finish_reason: str | None) -> End:
    """Return what `finish_reason` says; None means that the engine sent none."""
    return _ENDS.get(finish_reason, End.UNKNOWN)


def unfit_end(finish_reason: str | None) -> str | None:
    """Return why an answer with this end is no answer of any tier; None where it may be one.

    A filtered answer may be one: its tier refused to say more, which the client has to see. It is
    no answer of a tier below the final one (`confidence.checks`).
    """
    end = end_of(finish_reason)
    if end is End.BROKEN:
        return f"the engine gave the answer up ({_word(finish_reason)})"
    if end is End.UNKNOWN:
        return f"the answer is not known to be whole ({_word(finish_reason)})"
    return None


class Ends:
    """Follow the choices of one answer to their ends, as its events come or all at once."""

    __slots__ = ("_engine", "_finish_reasons")

    def __init__(self, engine: str) -> None:
        """Follow an answer of `engine`, which errors name."""
        self._engine = engine
        self._finish_reasons: dict[int, str | None] = {}

    def saw(self, finish_reasons: Mapping[int, str | None]) -> None:
        """Note the choices of one event by their index; None is a choice that goes on.

        Raises:
            EngineFailed: The engine gave a choice up.
        """
        for index, finish_reason in finish_reasons.items():
            if finish_reason is not None:
                self._refuse_broken(finish_reason)
                self._finish_reasons[index] = finish_reason
            else:
                self._finish_reasons.setdefault(index, None)

    def close(self) -> None:
        """Note that nothing more comes.

        Raises:
            EngineFailed: No choice came, or one has not ended.
        """
        if not self._finish_reasons:
            raise EngineFailed(f"engine {self._engine} sent an answer without a choice")
        for finish_reason in self._finish_reasons.values():
            self._refuse_broken(finish_reason)

    def _refuse_broken(self, finish_reason: str | None) -> None:
        if end_of(finish_reason) is End.BROKEN:
            raise EngineFailed(
                f"engine {self._engine} did not end its answer ({_word(finish_reason)})"
            )


def _word(finish_reason: str | None) -> str:
    return "no finish_reason" if finish_reason is None else f"finish_reason {finish_reason!r}"
