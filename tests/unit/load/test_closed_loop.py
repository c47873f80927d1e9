import asyncio

from hybridserve_llm.load.closed_loop import closed_loop


async def test_a_paused_loop_ends_what_is_in_flight_and_sends_no_more() -> None:
    asked: list[tuple[int, int]] = []
    n_in_flight = 0

    async def ask(worker: int, number: int) -> None:
        nonlocal n_in_flight
        asked.append((worker, number))
        n_in_flight += 1
        await asyncio.sleep(0)
        n_in_flight -= 1

    async with closed_loop(ask, 3) as loop:
        assert sorted(asked[:3]) == [(0, 0), (1, 0), (2, 0)]
        await asyncio.sleep(0)
        await loop.pause()
        assert n_in_flight == 0
        n_asked = len(asked)
        assert loop.n_finished == n_asked
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(asked) == n_asked
        await loop.pause()  # it is paused already
        loop.resume()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(asked) > n_asked
    # Each worker numbers its own requests.
    numbers = [number for worker, number in asked if worker == 1]
    assert numbers == list(range(len(numbers)))
