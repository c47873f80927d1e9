"""Programs made of answers, each case by hand: what a model wrote, and what is run of it."""

import pytest

from eval.questions.code_in_text import code_in, program_in

PROMPT = '''from typing import List


def helper(x):
    return x + 1


def double(xs: List[int]) -> List[int]:
    """ Twice each.
    >>> double([1])
    [2]
    """
'''
WHOLE = "def double(xs):\n    return [2 * x for x in xs]\n"


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{WHOLE}```",
        f"Here it is:\n\n```python\n{WHOLE}```\nIt doubles each. `double([1])` is [2].",
        f"```\n{WHOLE}\n```",
        f"```py\n{WHOLE}",  # cut before the end of the block
        f"```bash\npip install x\n```\n```python\n{WHOLE}```",
        WHOLE,
        f"Sure! This is it:\n\n{WHOLE}\nThis works since multiplication doubles.",
        f"```python\nimport math\n\n{WHOLE}```",
        "    return [2 * x for x in xs]\n",
        "return [2 * x for x in xs]",
        "```python\nreturn [2 * x for x in xs]\n```",
        "    ys = []\n    for x in xs:\n        ys += [2 * x]\n    return ys\n\nprint(double)\n",
        f"```python\n{WHOLE}\n```\n```python\nassert double([1]) == [3]\n```",
        "    ```python\n    def double(xs):\n        return [2 * x for x in xs]\n    ```",
        "```python\ndef double(xs: List) -> List:\n    return [2 * helper(x - 1) for x in xs]\n```",
    ],
)  # fmt: skip
def test_the_function_is_found(answer: str) -> None:
    names: dict[str, object] = {}
    exec(program_in(answer, prompt=PROMPT, entry_point="double"), names)
    double = names["double"]
    assert callable(double)
    assert double([1, 5]) == [2, 10]


@pytest.mark.parametrize("answer", ["", "I do not know.", "```python\ndef double(xs:\n```"])
def test_what_is_no_code_makes_no_program_that_runs(answer: str) -> None:
    program = program_in(answer, prompt=PROMPT.replace('"""', "# "), entry_point="double")
    with pytest.raises(SyntaxError):
        compile(program, "answer", "exec")


def test_a_docstring_alone_is_a_function_that_returns_nothing() -> None:
    names: dict[str, object] = {}
    exec(program_in("", prompt=PROMPT, entry_point="double"), names)
    assert callable(names["double"])


def test_code_is_the_first_block_or_all() -> None:
    assert code_in("So:\n```python\nx = 1\n```\n```\ny\n```") == "x = 1\n"
    assert code_in("x = 1") == "x = 1"
