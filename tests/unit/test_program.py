"""The frame of every program: exit status and the one line of error."""

import argparse

import pytest

from hybridserve_llm import __version__
from hybridserve_llm.errors import CannotBeDone, ConfigError, EngineUnavailable, HybridServeError
from hybridserve_llm.program import ExitStatus, add_version_option, run_program

Capture = pytest.CaptureFixture[str]


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("x = 1: not allowed"), 2),
        (CannotBeDone("port 80 is in use"), 3),
        (EngineUnavailable("no connection"), 3),
    ],
)
def test_an_error_of_ours_is_one_line_and_a_status(
    error: HybridServeError, status: int, capsys: Capture
) -> None:
    assert run_program("hs-x", lambda: raising(error)) == status
    captured = capsys.readouterr()
    assert captured.err == f"hs-x: error: {error}\n"
    assert captured.out == ""


def test_the_detail_of_an_error_is_for_the_terminal(capsys: Capture) -> None:
    run_program("hs-x", lambda: raising(EngineUnavailable("no connection", detail="refused by h")))
    assert capsys.readouterr().err == "hs-x: error: no connection: refused by h\n"


def test_an_error_of_several_lines_is_shown_on_one(capsys: Capture) -> None:
    run_program("hs-x", lambda: raising(ConfigError("first\n  second")))
    assert capsys.readouterr().err == "hs-x: error: first second\n"


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_program("hs-x", lambda: raising(ZeroDivisionError()))


def test_ctrl_c_is_status_130_and_says_how_to_go_on(capsys: Capture) -> None:
    assert run_program("hs-x", lambda: raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "hs-x: stopped\n"
    run_program("hs-x", lambda: raising(KeyboardInterrupt()), stopped="stopped; run it again")
    assert capsys.readouterr().err == "hs-x: stopped; run it again\n"


def test_the_status_is_that_of_the_run_or_0() -> None:
    assert run_program("hs-x", lambda: None) == 0
    assert run_program("hs-x", lambda: ExitStatus.CANNOT_BE_DONE) == 3


def test_the_version_option_prints_name_and_version(capsys: Capture) -> None:
    parser = argparse.ArgumentParser(prog="hs-x")
    add_version_option(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"hs-x {__version__}\n"
