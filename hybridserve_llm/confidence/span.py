"""Which tokens of a completion are its answer: reasoning is not scored.

Spans are found by token id, not by text: byte-level pieces make text ambiguous, and a reasoning
model may well write its own marker's letters inside an answer.
"""

from collections.abc import Sequence


def answer_start(token_ids: Sequence[int], reasoning_end_id: int) -> int:
    """Index of the first token after the last end-of-reasoning token; 0 where there is none.

    Args:
        token_ids: Ids of all generated tokens, shape [n_tokens].
        reasoning_end_id: Id of the token that ends reasoning, e.g. that of `</think>`.
    """
    for i in range(len(token_ids) - 1, -1, -1):
        if token_ids[i] == reasoning_end_id:
            return i + 1
    return 0
