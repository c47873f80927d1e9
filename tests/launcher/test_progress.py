import io

from rich.console import Console

from launch.engines.engine_log import READY
from launch.engines.progress import FAILED, StartProgress


class Watch:
    """A clock that stands still until it is set."""

    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


def test_plain_lines_appear_once_per_stage_and_end_with_the_first_end() -> None:
    screen, watch = io.StringIO(), Watch()
    with StartProgress(("a/0",), console=Console(file=screen), clock=watch) as progress:
        progress.show("a/0", "loading")
        watch.now_s = 103.2
        progress.show("a/0", "loading")
        progress.show("a/0", READY)
        progress.show("a/0", "loading")
    assert screen.getvalue() == "a/0: loading (0 s)\na/0: ready (3 s)\n"


def test_terminal_shows_one_line_per_engine() -> None:
    screen, watch = io.StringIO(), Watch()
    console = Console(file=screen, force_terminal=True, width=80)
    with StartProgress(("a/0", "b/0"), console=console, clock=watch) as progress:
        progress.show("a/0", READY)
        progress.show("b/0", FAILED)
    last = screen.getvalue()
    assert "a/0" in last
    assert "ready" in last
    assert "failed" in last
