"""Writing a file of attempts, so that it can be gone on with after any stop."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from eval.recorded.attempts import Attempts, AttemptsHeader, RecordedAttempt, parse_attempts
from eval.recorded.line_file import LineFile
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.promise.fingerprint import differences


class AttemptsFile:
    """A file of attempts that is written; a context manager that closes it.

    No other process can write it meanwhile. Every attempt is handed to the operating system as a
    whole line before `add` returns, so at most the line being written is torn by a kill.
    """

    def __init__(self, path: Path, header: AttemptsHeader) -> None:
        """Begins the file, or goes on with it and cuts a torn last line off.

        Raises:
            ConfigError: The file cannot be opened, another process writes it, it holds something
                else, or its header differs in more than `created`.
        """
        self.path = path
        self._file = LineFile(path)
        try:
            self.attempts = self._begin_or_go_on(header)
        except BaseException:
            self._file.close()
            raise

    def _begin_or_go_on(self, header: AttemptsHeader) -> Attempts:
        data = self._file.read()
        if not data:
            self._file.write(asdict(header))
            return Attempts(header=header)
        attempts, n_whole = parse_attempts(data, self.path)
        if differing := differing_headers(attempts.header, header):
            raise ConfigError(
                f"{self.path} was recorded with other {', '.join(differing)}; name another file, "
                "or go on with what it was recorded with"
            )
        self._file.cut(n_whole)
        return attempts

    def add(self, attempt: RecordedAttempt) -> None:
        """Writes one attempt; `attempts` holds it then.

        Raises:
            ConfigError: It does not fit the file (`Attempts.add`).
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        self.attempts.add(attempt)
        self._file.write(asdict(attempt))

    def change(self, changed: Sequence[RecordedAttempt]) -> None:
        """Puts attempts in place of those of the same question and tier, by a file written anew.

        Whatever happens meanwhile, the file is the old one or the new one. Nothing is written where
        nothing differs.

        Raises:
            CannotBeDone: It cannot be written.
        """
        there, header = self.attempts.by_question, self.attempts.header
        if all(there[one.question][one.tier] == one for one in changed):
            return
        for one in changed:
            there[one.question][one.tier] = one
        lines = [asdict(header)]
        for tier in header.tiers:
            lines += [asdict(by[tier.name]) for by in there.values() if tier.name in by]
        self._file.replace(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def differing_headers(
    there: AttemptsHeader, now: AttemptsHeader, *, same_prompts: bool = True
) -> list[str]:
    """What of two headers differs, in words; empty where nothing that matters does.

    `same_prompts` says whether the file of prompts matters.
    """
    differing = [
        f"{words} ({key}: {getattr(there, key)!r:.60} there, {getattr(now, key)!r:.60} now)"
        for key, words in (
            ("data_sha256", "prompts"),
            ("labels", "labels"),
            ("grader", "grader"),
            ("sampling", "sampling"),
        )
        if getattr(there, key) != getattr(now, key) and (same_prompts or key != "data_sha256")
    ]
    if there.tiers != now.tiers:
        old, new = (", ".join(f"{t.name}={t.model}" for t in h.tiers) for h in (there, now))
        differing.append(f"tiers ({old} there, {new} now)")
    old_print, new_print = there.fingerprint or {}, now.fingerprint or {}
    if old_print.get("hash") != new_print.get("hash"):
        parts = differences(old_print.get("parts") or {}, new_print.get("parts") or {})
        differing.append(f"fingerprint of the cascade ({'; '.join(parts[:3]) or 'hash'})")
    return differing
