"""Where published numbers come from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a reader needs to produce the numbers anew; all in words, nothing is looked up here.

    Attributes:
        command: The command line that was run.
        commit: Of this project; None where it is unknown.
        date: Of the run, ISO 8601.
        hardware: What it ran on; "unknown" where that is not told.
        label_source: Who says which answers are right.
    """

    command: str
    project_version: str
    commit: str | None
    python_version: str
    numpy_version: str
    sklearn_version: str
    date: str
    hardware: str
    label_source: str

    def rows(self) -> tuple[tuple[str, str], ...]:
        """What each entry is, and the entry, in reading order."""
        return (
            ("command", self.command),
            ("labels", self.label_source),
            ("hybridserve-llm", self.project_version),
            ("commit", self.commit or "unknown"),
            ("Python", self.python_version),
            ("numpy", self.numpy_version),
            ("scikit-learn", self.sklearn_version),
            ("hardware", self.hardware),
            ("date", self.date),
        )
