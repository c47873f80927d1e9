"""Run `hs-launch`: read the command line, hand over to what was asked for, and print.

This file alone prints: results to stdout, progress and errors to stderr. What a command needs is
imported when it runs, as the planner and pydantic are heavy: `--help` and `--version` do without.
"""

import functools
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.program import ExitStatus, run_program
from launch.options import LaunchOptions, StatusOptions, StopOptions, read_command_line

_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hs-launch` and return its exit status, as `hybridserve_llm/program.py` lists them.

    `hs-launch status` returns 3, too, where not all that runs is ready. Ctrl-C is no error.
    """
    options = read_command_line(arguments)
    level = options.log_level.upper() if isinstance(options, LaunchOptions) else "WARNING"
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    return run_program("hs-launch", functools.partial(_run, options))


def _run(options: LaunchOptions | StatusOptions | StopOptions) -> ExitStatus:
    try:
        match options:
            case LaunchOptions(dry_run=True):
                _dry_run(options)
            case LaunchOptions():
                _launch(options)
            case StatusOptions():
                return _status(options)
            case StopOptions():
                _stop(options)
    except KeyboardInterrupt:  # before the signals are ours: nothing is started yet
        pass
    return ExitStatus.DONE


def _launch(options: LaunchOptions) -> None:
    from launch.run import launch  # heavy

    launch(options, say=functools.partial(print, flush=True))


def _dry_run(options: LaunchOptions) -> None:
    from rich.console import Console  # heavy, as all that follows

    from hybridserve_llm.reporting.blocks import print_blocks
    from launch.plans.explain import plan_blocks
    from launch.plans.planning import planned
    from launch.run import checked_cascade

    checked = checked_cascade(options)
    found = planned(checked.config, options, checked.certificate)
    if options.json:
        print(found.report.to_json(), end="")
    else:
        console = Console(width=_TABLE_WIDTH, highlight=False)
        print_blocks(plan_blocks(checked.config, found.report), console)
    found.checked()


def _status(options: StatusOptions) -> ExitStatus:
    from rich.console import Console  # heavy, as all that follows

    from launch.running.status import launch_status, launch_text, launches_json

    folders = _folders(options.run_folder)
    now_s = time.monotonic()
    launches = [launch_status(folder, now_s=now_s) for folder in folders]
    if options.json:
        print(launches_json(launches))
    elif not launches:
        raise CannotBeDone("no launcher of this user runs; --run-folder names one that ended")
    else:
        console = Console(width=_TABLE_WIDTH, highlight=False, soft_wrap=True)
        for found in launches:
            console.print(launch_text(found))
    is_ready = bool(launches) and all(found.is_ready for found in launches)
    return ExitStatus.DONE if is_ready else ExitStatus.CANNOT_BE_DONE


def _stop(options: StopOptions) -> None:
    from launch.running.launch_index import stop_launch  # heavy

    folders = _folders(options.run_folder)
    if not folders:
        raise CannotBeDone("no launcher of this user runs")
    if len(folders) > 1:
        raise ConfigError(f"several launchers run; --run-folder says which: {_listed(folders)}")
    pid = stop_launch(folders[0].absolute(), timeout_s=options.timeout)
    print(f"stopped: pid {pid}, run folder {folders[0].absolute()}")


def _folders(named: Path | None) -> list[Path]:
    from launch.running.launch_index import running_launches  # heavy

    return [named] if named is not None else running_launches(os.environ)


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))


if __name__ == "__main__":
    sys.exit(main())
