import io

from rich.console import Console

from launch.profiling.progress import MeasureProgress


def test_without_a_terminal_each_round_is_one_line() -> None:
    screen = io.StringIO()
    with MeasureProgress(Console(file=screen), "small", n_windows=4, repeats=2) as progress:
        for number, concurrency in ((1, 1), (1, 2), (2, 2), (2, 1)):
            progress.begin_window(number, concurrency)
    assert screen.getvalue() == "small: round 1 of 2\nsmall: round 2 of 2\n"


def test_on_a_terminal_there_is_a_bar_that_fills() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with MeasureProgress(console, "small", n_windows=2, repeats=1) as progress:
        progress.begin_window(1, 1)
        progress.begin_window(1, 8)
    shown = screen.getvalue()
    assert "small: round 1 of 1, 8 in flight" in shown
    assert "2/2" in shown
