"""Run `hs-eval`: accuracy and energy, offline, one subcommand for each study.

A subcommand is imported only when it is asked for.
"""

import sys
from collections.abc import Sequence

from eval.commands.command_table import CommandEntry, CommandTable

COMMANDS = CommandTable(
    program="hs-eval",
    description="Accuracy and energy of cascades, offline.",
    entries={
        "collect": CommandEntry(module="collect", summary="ask every tier of a running cascade"),
        "measure": CommandEntry(module="measure", summary="accuracy and cost of a running cascade"),
        "records": CommandEntry(module="records", summary="recorded answers with measured joules"),
        "replay": CommandEntry(
            module="replay", summary="recorded answers through the server's policy"
        ),
        "report": CommandEntry(module="report", summary="measured runs as HTML and Markdown"),
        "sweep": CommandEntry(module="sweep", summary="recorded answers at many thresholds"),
        "simulate": CommandEntry(module="simulate", summary="a planned cascade under a trace"),
    },
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hs-eval` and return its exit status, as `hybridserve_llm/program.py` lists them."""
    return COMMANDS.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
