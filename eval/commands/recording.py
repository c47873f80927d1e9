"""Record the answers of a running cascade in a file of attempts, where they are not yet in it."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from eval.asking.attempt_joules import AttemptJoules
from eval.asking.collect import (
    MAX_RETRIES,
    CascadeDescription,
    cascade_client,
    collect,
    describe_cascade,
)
from eval.asking.collect_progress import CollectProgress
from eval.commands.asking_options import AskingOptions, AttemptsOptions
from eval.questions.code_runs import check_programs_run
from eval.questions.prompts import PromptSet
from eval.recorded.attempts import AttemptsFile, AttemptsHeader
from eval.recorded.calibration_data import checked_chain
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.errors import CannotBeDone


def ask_cascade(
    prompts: PromptSet,
    asking: AskingOptions,
    files: AttemptsOptions,
    *,
    chain: tuple[str, ...] | None,
    costs: Mapping[str, float],
    console: Console,
) -> None:
    """Ask what is not yet answered in the file of attempts; `console` shows progress.

    `chain` names the tiers to ask, None for all. `costs` has the models whose cost is given.

    Raises:
        ConfigError: An option is not allowed, or the file of attempts is of something else:
            nothing was asked then. Or the server's records cannot be read.
        CannotBeDone: The cascade does not answer; what was recorded stays.
        KeyboardInterrupt: Ctrl-C; what was recorded stays.
    """
    if asking.run_code:
        check_programs_run()
    key = asking.api_key()

    async def record() -> None:
        async with cascade_client(asking.base_url, key, max_retries=MAX_RETRIES) as client:
            cascade = await describe_cascade(client)
            names = tuple(tier.name for tier in cascade.tiers)
            wanted = checked_chain(chain, costs, names)
            header = header_of(cascade, prompts, asking)
            with AttemptsFile(files.attempts, header) as file, CollectProgress(console) as progress:
                joules = _joules_of(file, files.records)
                try:
                    await collect(
                        client,
                        prompts,
                        file,
                        chain=wanted,
                        concurrency=asking.concurrency,
                        progress=progress,
                    )
                    if joules is not None:
                        await joules.fill(progress.note)
                except CannotBeDone as exc:
                    raise CannotBeDone(f"{exc}; {how_to_go_on(files.attempts)}") from exc

    asyncio.run(record())


def header_of(
    cascade: CascadeDescription, prompts: PromptSet, asking: AskingOptions
) -> AttemptsHeader:
    """Return the header of a file of answers, which says what was asked and of whom."""
    return AttemptsHeader(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tiers=cascade.tiers,
        fingerprint=cascade.fingerprint,
        sampling=dict(asking.sampling),
        demands=prompts.demands(asking.sampling),
        endpoints=tuple(endpoint.value for endpoint in prompts.endpoints),
        data_sha256=prompts.sha256,
        labels=prompts.labels,
        grader=asking.grader.model_dump(mode="json") if asking.grader else None,
    )


def how_to_go_on(path: Path) -> str:
    """Say what to do after a collection that was stopped."""
    return f"what was answered is in {path}, and the same command goes on from there"


def _joules_of(file: AttemptsFile, records: Path | None) -> AttemptJoules | None:
    """Return what fills in the joules of attempts; None where no records are named.

    Records that cannot be read raise ConfigError here, before anything is asked.
    """
    if records is None:
        return None
    joules = AttemptJoules(records, file, clock=SystemClock(), sleep=asyncio.sleep)
    joules.look()
    return joules
