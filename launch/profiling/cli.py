"""`hs-profile`: reads the command line, has engines measured, and prints what came out.

Results go to stdout, progress and errors to stderr.
"""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from hybridserve_llm.errors import ConfigError, HybridServeError
from launch.profiling.options import read_profile_options
from launch.profiling.session import profile_tiers
from launch.profiling.tables import checks_table, points_table, to_json

_EXIT_CONFIG, _EXIT_CANNOT, _EXIT_INTERRUPTED = 2, 3, 130
_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hs-profile`; its exit status: 0, 2 (wrong usage), 3 (not possible), 130 (stopped)."""
    options = read_profile_options(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        profiled = profile_tiers(options)
    except HybridServeError as exc:
        print(f"hs-profile: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return _EXIT_CONFIG if isinstance(exc, ConfigError) else _EXIT_CANNOT
    except KeyboardInterrupt:
        print(f"hs-profile: stopped; complete profiles are in {options.out}", file=sys.stderr)
        return _EXIT_INTERRUPTED
    if options.json:
        print(to_json(profiled))
        return 0
    console = Console(width=_TABLE_WIDTH, highlight=False)
    for one in profiled:
        console.print(points_table(one))
    if options.check:
        console.print(checks_table(profiled))
    return 0


if __name__ == "__main__":
    sys.exit(main())
