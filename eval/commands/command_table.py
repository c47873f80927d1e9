"""Choose a subcommand of a program, and import only the module of that one.

The modules load numpy, pydantic or scikit-learn, which takes seconds; the table alone is enough for
`--help`, `--version` and an unknown command.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridserve_llm.program import ExitStatus, add_version_option

if TYPE_CHECKING:
    from eval.commands.command import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEntry:
    """Name the module in `eval.commands` of a subcommand, and sum it up in one line."""

    module: str
    summary: str

    def load(self) -> "Command[Any, Any]":
        """Import the module and return its `COMMAND`."""
        command: Command[Any, Any] = import_module(f"eval.commands.{self.module}").COMMAND
        return command


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTable:
    """Hold the subcommands of a program by their names."""

    program: str
    description: str
    entries: Mapping[str, CommandEntry]

    def main(self, arguments: Sequence[str] | None) -> ExitStatus:
        """Run the command that `arguments` name, or those of this process where they are None.

        Wrong usage, `--help` and `--version` end the program (SystemExit).
        """
        words = list(sys.argv[1:] if arguments is None else arguments)
        # All options of the program itself are flags, so the first other word is the command.
        name = next((word for word in words if not word.startswith("-")), "")
        entry = self.entries.get(name)
        command = None if entry is None else entry.load()
        values = self._parser(name, command).parse_args(words)
        if command is None:
            raise AssertionError(f"{name!r} passed the parser, which knows it as little")
        return command.execute(self.program, values)

    def _parser(self, chosen: str, command: "Command[Any, Any] | None") -> argparse.ArgumentParser:
        top = argparse.ArgumentParser(prog=self.program, description=self.description)
        add_version_option(top)
        commands = top.add_subparsers(dest="command", required=True)
        for name, entry in self.entries.items():
            parser = commands.add_parser(name, help=entry.summary)
            if command is not None and name == chosen:
                command.fill(parser)
        return top
