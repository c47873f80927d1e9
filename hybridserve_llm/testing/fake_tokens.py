"""Tokenize for the fake engine: one token per UTF-8 byte, and the demo family's special tokens."""

import re

SPECIAL_TOKENS = (
    "<|pad|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<think>",
    "</think>",
)
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


def byte_tokens(text: str) -> list[int]:
    """Return the ids of `text`: 0 to 6 for the special tokens, 7 and more for bytes."""
    ids: list[int] = []
    at = 0
    for match in _SPECIAL.finditer(text):
        ids.extend(byte + len(SPECIAL_TOKENS) for byte in text[at : match.start()].encode())
        ids.append(SPECIAL_TOKENS.index(match.group()))
        at = match.end()
    ids.extend(byte + len(SPECIAL_TOKENS) for byte in text[at:].encode())
    return ids


def token_text(ids: list[int]) -> str:
    """Return the text of `ids` without special tokens; bytes that are no UTF-8 become U+FFFD."""
    n_special = len(SPECIAL_TOKENS)
    return bytes(i - n_special for i in ids if i >= n_special).decode("utf-8", errors="replace")
