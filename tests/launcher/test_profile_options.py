import re
from pathlib import Path

import pytest

from launch.profiling.cli import main
from launch.profiling.options import read_profile_options

PAGE = Path(__file__).parents[2] / "docs/profile.md"


def test_defaults_and_command_are_kept() -> None:
    options = read_profile_options(["--demo", "--tier", "small"])
    assert options.concurrency == (1, 2, 4, 8, 16)
    assert options.tiers == ("small",)
    assert options.command == ("hs-profile", "--demo", "--tier", "small")


def test_log_probabilities_can_be_left_out() -> None:
    assert read_profile_options(["--demo", "--top-logprobs", "-1"]).top_logprobs is None
    assert read_profile_options(["--demo", "--top-logprobs", "0"]).top_logprobs == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --demo and --config is needed"),
        (["--demo", "--concurrency", "1,4,2"], "'1,4,2' must rise, each number once"),
        (["--demo", "--concurrency", "0,4"], "'0' is not a whole number: allowed are 1 to 4096"),
        (["--demo", "--concurrency", "2,8", "--check", "4"], "--concurrency has to begin with"),
        (["--demo", "--check", "17"], "--check takes points that --concurrency leaves out"),
        (["--demo", "--check", "4"], "--check takes points that --concurrency leaves out"),
        (["--demo", "--window-s", "0"], "'0' is not a number of seconds: allowed are above 0"),
        (["--demo", "--window-s", "x"], "'x' is not a number of seconds"),
        (["--demo", "--repeats", "0"], "'0' is not a whole number: allowed are 1 or more"),
        (["--demo", "--output-tokens", "1"], "allowed are 2 or more"),
        (["--demo", "--config", "x"], "not allowed with argument"),
    ],
)
def test_wrong_usage_is_told_and_exits_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        read_profile_options(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_every_option_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    rows = re.findall(r"^\| `(--[a-z-]+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == offered
