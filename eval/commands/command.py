"""Describe a subcommand: its options, how they become a value, what runs, and how it is shown.

Every module of a subcommand holds one `Command`, named `COMMAND`. Results go to stdout, progress
and errors to stderr.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from rich.console import Console

from hybridserve_llm.program import ExitStatus, run_program

if TYPE_CHECKING:
    from dataclasses import Field

_TABLE_WIDTH = 80


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, "Field[Any]"]]


class Result(Protocol):
    """Represent a result of a command that can be printed as JSON."""

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""


ValueT = TypeVar("ValueT", bound=_Dataclass)
OptionsT = TypeVar("OptionsT")
ResultT = TypeVar("ResultT", bound=Result)


def _says_stopped(_: object) -> str:
    return "stopped"


def _is_done(_: object) -> ExitStatus:
    return ExitStatus.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Generic[OptionsT, ResultT]):
    """Hold what one subcommand does with its options.

    Attributes:
        description: Text at the top of its help.
        add_options: Adds its options to a parser, but for `--json`.
        read: Makes the options' value of what was parsed.
        run: Does the work; the console shows progress, on stderr.
        show: Prints the result for a person, on a console of 80 columns.
        stopped: Returns the text that follows the program's name after Ctrl-C.
        status: Returns the exit status of a result.
        json_help: Help text of `--json`.
    """

    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    read: Callable[[argparse.Namespace], OptionsT]
    run: Callable[[OptionsT, Console], ResultT]
    show: Callable[[ResultT, Console], None]
    stopped: Callable[[OptionsT], str] = _says_stopped
    status: Callable[[ResultT], ExitStatus] = _is_done
    json_help: str = "print JSON and nothing else"

    def fill(self, parser: argparse.ArgumentParser) -> None:
        """Add the description and all options to `parser`."""
        parser.description = self.description
        self.add_options(parser)
        parser.add_argument("--json", action="store_true", help=self.json_help)

    def main(self, program: str, arguments: Sequence[str] | None) -> ExitStatus:
        """Parse `arguments` and run, for a program that has this command alone."""
        parser = argparse.ArgumentParser(prog=program)
        self.fill(parser)
        return self.execute(program, parser.parse_args(arguments))

    def execute(self, program: str, values: argparse.Namespace) -> ExitStatus:
        """Run the command and print its result; `program` is the name in messages."""
        options = self.read(values)
        return run_program(
            program,
            lambda: self._run_and_show(options, is_json=values.json),
            stopped=self.stopped(options),
        )

    def _run_and_show(self, options: OptionsT, *, is_json: bool) -> ExitStatus:
        result = self.run(options, Console(stderr=True))
        if is_json:
            print(json.dumps(result.as_json()))
        else:
            self.show(result, Console(width=_TABLE_WIDTH, highlight=False, markup=False))
        return self.status(result)


def options_from(kind: type[ValueT], values: argparse.Namespace) -> ValueT:
    """Build the dataclass `kind` from the parsed values that have the names of its fields."""
    return kind(**{field.name: getattr(values, field.name) for field in fields(kind)})
