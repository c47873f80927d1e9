"""The start of every program: `--help` and `--version` load nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from eval.calibrate import COMMANDS as CALIBRATE_COMMANDS
from eval.cli import COMMANDS as EVAL_COMMANDS
from eval.commands.command import Command
from eval.commands.command_table import CommandTable
from hybridserve_llm import __version__

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "hs-calibrate": "eval.calibrate",
    "hs-eval": "eval.cli",
    "hs-launch": "launch.cli",
    "hs-profile": "launch.profiling.cli",
}
HEAVY = {
    "aiohttp", "fastapi", "highspy", "matplotlib", "msgspec", "numpy", "openai", "orjson",
    "prometheus_client", "pydantic", "rich", "scipy", "sklearn", "uvicorn", "yaml",
}  # fmt: skip
LIST_MODULES = """
import runpy, sys
module = sys.argv[1]
sys.argv = [module, *sys.argv[2:]]
try:
    runpy.run_module(module, run_name="__main__")
finally:
    print("\\n".join(sorted(sys.modules)), file=sys.stderr)
"""


def started(module: str, *arguments: str) -> tuple[str, set[str]]:
    """What a program prints, and the modules that it has imported when it ends."""
    ended = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout, set(ended.stderr.splitlines())


@pytest.mark.parametrize("program", sorted(PROGRAMS))
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_nothing_heavy_is_imported(program: str, option: str) -> None:
    out, modules = started(PROGRAMS[program], option)
    assert program in out
    assert "argparse" in modules
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert {name for name in modules if name.startswith("eval.commands.")} <= {
        "eval.commands.command_table"
    }


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_the_version_is_printed(program: str) -> None:
    assert started(PROGRAMS[program], "--version")[0] == f"{program} {__version__}\n"


def test_the_help_of_a_command_imports_no_other_command() -> None:
    out, modules = started("eval.cli", "sweep", "--help")
    assert "--steps" in out
    others = {entry.module for entry in EVAL_COMMANDS.entries.values()} - {"sweep"}
    assert {f"eval.commands.{name}" for name in others} & modules == set()


@pytest.mark.parametrize("table", [EVAL_COMMANDS, CALIBRATE_COMMANDS], ids=lambda t: t.program)
def test_every_command_is_there(table: CommandTable) -> None:
    assert len(table.entries) >= 2
    for entry in table.entries.values():
        assert isinstance(entry.load(), Command)
        assert entry.summary


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        EVAL_COMMANDS.main(["planner-fit"])
    assert ended.value.code == 2
    assert "invalid choice: 'planner-fit'" in capsys.readouterr().err


def test_calibrate_runs_as_a_module(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "eval.calibrate", "records", str(tmp_path / "none.csv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("hs-calibrate: error: cannot read")
