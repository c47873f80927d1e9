"""`hs-launch`: reads the command line, hands over to what was asked for, and prints.

This file alone prints: results to stdout, progress and errors to stderr.
"""

import functools
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hybridserve_llm.errors import CannotBeDone, ConfigError, HybridServeError
from launch.options import LaunchOptions, StatusOptions, StopOptions, read_command_line
from launch.plans.explain import plan_text
from launch.plans.plan_report import plan_json
from launch.plans.planning import planned
from launch.run import checked_cascade, launch
from launch.running.launch_index import running_launches
from launch.running.status import status_of, to_json, to_text
from launch.running.stop_command import stop_launch

_EXIT_CONFIG, _EXIT_CANNOT = 2, 3
_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hs-launch`; its exit status: 0 done, 2 wrong usage or configuration, 3 not possible."""
    options = read_command_line(arguments)
    level = options.log_level.upper() if isinstance(options, LaunchOptions) else "WARNING"
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        match options:
            case LaunchOptions(dry_run=True):
                return _dry_run(options)
            case LaunchOptions():
                launch(options, say=functools.partial(print, flush=True))
            case StatusOptions():
                return _status(options)
            case StopOptions():
                return _stop(options)
    except HybridServeError as exc:
        print(f"hs-launch: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return _EXIT_CONFIG if isinstance(exc, ConfigError) else _EXIT_CANNOT
    except KeyboardInterrupt:  # before the signals are ours: nothing is started yet
        pass
    return 0


def _dry_run(options: LaunchOptions) -> int:
    checked = checked_cascade(options)
    found = planned(checked.config, options, checked.certificate)
    if options.json:
        print(plan_json(found), end="")
    else:
        console = Console(width=_TABLE_WIDTH, highlight=False)
        for part in plan_text(checked.config, found):
            console.print(part, markup=False)
    found.checked()
    return 0


def _status(options: StatusOptions) -> int:
    folders = _folders(options.run_folder)
    now_s = time.monotonic()
    launches = [status_of(folder, now_s=now_s) for folder in folders]
    if options.json:
        print(to_json(launches))
    elif not launches:
        raise CannotBeDone("no launcher of this user runs; --run-folder names one that ended")
    else:
        console = Console(width=_TABLE_WIDTH, highlight=False, soft_wrap=True)
        for found in launches:
            console.print(to_text(found))
    is_ready = bool(launches) and all(found.is_ready for found in launches)
    return 0 if is_ready else _EXIT_CANNOT


def _stop(options: StopOptions) -> int:
    folders = _folders(options.run_folder)
    if not folders:
        raise CannotBeDone("no launcher of this user runs")
    if len(folders) > 1:
        raise ConfigError(f"several launchers run; --run-folder says which: {_listed(folders)}")
    pid = stop_launch(folders[0].absolute(), timeout_s=options.timeout)
    print(f"stopped: pid {pid}, run folder {folders[0].absolute()}")
    return 0


def _folders(named: Path | None) -> list[Path]:
    return [named] if named is not None else running_launches(os.environ)


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))


if __name__ == "__main__":
    sys.exit(main())
