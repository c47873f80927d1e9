"""Run `hs-calibrate`: from labelled answers to a certified policy.

`hs-calibrate prompts FILE` asks the tiers of a running cascade first. `hs-calibrate records FILE`
takes answers that were recorded.
"""

import sys
from collections.abc import Sequence

from eval.commands.command_table import CommandEntry, CommandTable

COMMANDS = CommandTable(
    program="hs-calibrate",
    description="Fit and certify when a cascade takes a small answer.",
    entries={
        "records": CommandEntry(module="calibrate_records", summary="from recorded answers"),
        "prompts": CommandEntry(module="calibrate_prompts", summary="from labelled prompts"),
    },
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hs-calibrate` and return its exit status, as `hybridserve_llm/program.py` lists them.

    Where nothing can be certified the status is 3, too.
    """
    return COMMANDS.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
