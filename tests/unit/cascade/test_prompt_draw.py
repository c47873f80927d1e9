"""The number that says whether a prompt is in a share."""

from hybridserve_llm.cascade.prompt_draw import prompt_draw

ASKED = {"messages": [{"role": "user", "content": "What is 2 + 3?"}]}


def test_the_same_prompt_gives_the_same_number_whatever_else_is_asked() -> None:
    turned_round = {"messages": [{"content": "What is 2 + 3?", "role": "user"}]}
    with_settings = {**ASKED, "temperature": 0.7, "seed": 4, "tools": []}
    assert prompt_draw(ASKED) == prompt_draw(turned_round) == prompt_draw(with_settings)


def test_another_prompt_gives_another_number() -> None:
    other = {"messages": [{"role": "user", "content": "What is 2 + 4?"}]}
    assert prompt_draw(other) != prompt_draw(ASKED)
    assert prompt_draw({"prompt": "What is 2 + 3?"}) != prompt_draw(ASKED)


def test_numbers_are_spread_evenly() -> None:
    draws = [prompt_draw({"prompt": f"What is {i} + 1?"}) for i in range(2000)]
    assert all(0 <= draw < 1 for draw in draws)
    # Each half holds 1,000 of 2,000; three standard deviations are 3 * sqrt(500) = 67.
    assert abs(sum(draw < 0.5 for draw in draws) - 1000) <= 67
