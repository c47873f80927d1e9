"""The Python code in an answer that completes a function, HumanEval's kind of question.

A model may write the whole function inside ``` marks or bare, with prose around it, or nothing but
the function's body. What is made of it is one program, in this order:

1. the fenced block that defines the function (the first, if several do);
2. bare text that does, without the prose before and after it;
3. else the answer (or its first fenced block) is the body that the prompt's last line asks for.

Deviation: HumanEval's own evaluation (Chen et al. 2021, arXiv 2107.03374, section 2.1) knows base
models only, and takes the third way alone.
"""

import ast
import re
import textwrap

_FENCED = re.compile(r"```(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
"""Also a block that has no end, as the answer was cut."""

_CODE_BEGINS = re.compile(r"^(?:from\s|import\s|def\s|async\s|class\s|@)", re.MULTILINE)
_INDENT = "    "


def program_in(answer: str, *, prompt: str, entry_point: str) -> str:
    """A program that defines `entry_point` as `answer` has it, which may not be valid Python.

    Args:
        answer: What the model wrote.
        prompt: What it was asked to complete: imports, helpers, and the function's head.
        entry_point: The function's name.
    """
    definition = _definition(entry_point)
    blocks = _FENCED.findall(answer)
    whole = next((block for block in blocks if definition.search(block)), None)
    if whole is None and definition.search(answer):
        whole = _without_prose(answer)
    if whole is not None:
        return f"{_before(prompt, definition)}\n{textwrap.dedent(whole)}"
    return f"{prompt.rstrip()}\n{_as_body(blocks[0] if blocks else answer)}"


def code_in(answer: str) -> str:
    """The first fenced block of `answer`; the answer itself where there is none."""
    block = _FENCED.search(answer)
    return answer if block is None else block[1]


def _definition(name: str) -> re.Pattern[str]:
    return re.compile(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{re.escape(name)}[ \t]*\(", re.MULTILINE)


def _before(prompt: str, definition: re.Pattern[str]) -> str:
    """Imports and helpers of the prompt, which an answer seldom repeats."""
    head = definition.search(prompt)
    return "" if head is None else prompt[: head.start()]


def _without_prose(answer: str) -> str:
    """From the first line that is code to the last with which all of it is Python."""
    begins = _CODE_BEGINS.search(answer)
    lines = answer[begins.start() if begins else 0 :].splitlines()
    for n in range(len(lines), 0, -1):
        code = "\n".join(lines[:n])
        if _is_python(code):
            return code
    return "\n".join(lines)


def _as_body(text: str) -> str:
    """`text` indented as a body of the function; what is not indented any more ends it."""
    lines = text.strip("\n").splitlines()
    first = next((line for line in lines if line.strip()), "")
    if first[:1] not in (" ", "\t"):
        return textwrap.indent("\n".join(lines), _INDENT)
    ends = next((i for i, line in enumerate(lines) if line and line[0] not in " \t#"), len(lines))
    return "\n".join(lines[:ends])


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
