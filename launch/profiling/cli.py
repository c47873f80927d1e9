"""Run `hs-profile`: read the command line, have engines measured, and print the result.

Results go to stdout, progress and errors to stderr. What a measurement needs is imported when it
runs, as numpy and pydantic are heavy: `--help` and `--version` do without.
"""

import functools
import logging
import sys
from collections.abc import Sequence

from hybridserve_llm.program import run_program
from launch.profiling.options import ProfileOptions, read_profile_options

_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hs-profile` and return its exit status, as `hybridserve_llm/program.py` lists them."""
    options = read_profile_options(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    return run_program(
        "hs-profile",
        functools.partial(_profile, options),
        stopped=f"stopped; complete profiles are in {options.out}",
    )


def _profile(options: ProfileOptions) -> None:
    from rich.console import Console  # heavy, as all that follows

    from hybridserve_llm.reporting.blocks import print_blocks
    from launch.profiling.session import profile_tiers
    from launch.profiling.tables import checks_table, points_blocks, profiles_as_json

    profiled = profile_tiers(options)
    if options.json:
        print(profiles_as_json(profiled))
        return
    console = Console(width=_TABLE_WIDTH, highlight=False)
    for one in profiled:
        print_blocks(points_blocks(one), console)
    if options.check:
        print_blocks([checks_table(profiled)], console)


if __name__ == "__main__":
    sys.exit(main())
