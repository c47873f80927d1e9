"""From labelled prompts to a complete file of attempts: everything before the calibration."""

import argparse
import asyncio
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from eval.asking.attempt_joules import AttemptJoules
from eval.asking.collect import MAX_RETRIES, cascade_client, collect, describe_cascade
from eval.asking.collect_progress import CollectProgress
from eval.questions.code_runs import check_programs_run
from eval.questions.prompts import PromptSet, read_prompts
from eval.recorded.attempts import AttemptsHeader
from eval.recorded.attempts_file import AttemptsFile
from eval.recorded.calibration_data import checked_chain
from eval.recorded.splits import disjoint_splits
from hybridserve_llm.calibration.outcomes import Outcomes, draws_of
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.errors import CannotBeDone, ConfigError


def record_attempts(options: argparse.Namespace, *, console: Console) -> Path:
    """Asks what is not yet answered, and gives the file of attempts; `console` shows progress.

    Raises:
        ConfigError: The prompts file or an option is not allowed, there are too few prompts, or the
            file of attempts is of something else: nothing was asked then. Or the server's records
            cannot be read.
        CannotBeDone: The cascade does not answer; what was recorded stays.
        KeyboardInterrupt: Ctrl-C; what was recorded stays.
    """
    prompts = read_prompts(options.file, options.grader, run_code=options.run_code)
    if not options.bootstrap:
        check_enough_prompts(prompts, options)
    ask_cascade(options, prompts, console=console)
    path: Path = options.attempts
    return path


def ask_cascade(options: argparse.Namespace, prompts: PromptSet, *, console: Console) -> None:
    """Asks what is not yet answered in the file of attempts.

    Raises:
        ConfigError, CannotBeDone, KeyboardInterrupt: As in `record_attempts`.
    """
    if options.run_code:
        check_programs_run()
    asyncio.run(_record(options, prompts, api_key_in(options.api_key_env), console))


def check_enough_prompts(prompts: PromptSet, options: argparse.Namespace) -> None:
    """Passes where as many answers would be enough to fit, certify and test; asks nothing.

    Raises:
        ConfigError: There are too few prompts, or too few to certify such a harm even without one
            harmful answer: that takes ln(delta) / ln(1 - epsilon) questions.
    """
    splits = disjoint_splits(_unanswered(prompts), options.n_fit, options.n_certify, options.seed)
    needed = math.ceil(math.log(options.delta) / math.log1p(-options.epsilon))
    there = splits.certify.n_questions
    if options.loss == "harm" and there < needed:
        raise ConfigError(
            f"{options.file}: {there} of {len(prompts.prompts)} prompts are there to certify on; "
            f"harm <= {options.epsilon:g} at delta {options.delta:g} takes at least {needed}"
        )


def _unanswered(prompts: PromptSet) -> Outcomes:
    """Outcomes without tiers, which can be split as answered ones will be."""
    n = len(prompts.prompts)
    return Outcomes(
        tiers=(),
        is_right=np.empty((n, 0), dtype=np.bool_),
        scores=np.empty((n, 0)),
        answers=np.empty((n, 0), dtype=np.int64),
        costs=np.empty(0),
        prompt_features=np.empty((n, 0)),
        prompt_feature_names=(),
        answer_features=np.empty((n, 0, 0)),
        answer_feature_names=(),
        questions=tuple(prompt.question for prompt in prompts.prompts),
        draws=draws_of(tuple(prompt.question for prompt in prompts.prompts)),
        groups=tuple(prompt.group for prompt in prompts.prompts),
    )


def api_key_in(name: str | None) -> str | None:
    """The API key that an environment variable holds; None where none is named.

    Raises:
        ConfigError: The variable is not set.
    """
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise ConfigError(f"--api-key-env names {name}, which is not set")
    return key


async def _record(
    options: argparse.Namespace, prompts: PromptSet, api_key: str | None, console: Console
) -> None:
    async with cascade_client(options.base_url, api_key, max_retries=MAX_RETRIES) as client:
        cascade = await describe_cascade(client)
        names = tuple(tier.name for tier in cascade.tiers)
        chain = checked_chain(options.chain, dict(options.cost), names)
        header = AttemptsHeader(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            tiers=cascade.tiers,
            fingerprint=cascade.fingerprint,
            sampling=options.sampling,
            endpoints=tuple(endpoint.value for endpoint in prompts.endpoints),
            data_sha256=prompts.sha256,
            labels=prompts.labels,
            grader=options.grader.model_dump(mode="json") if options.grader else None,
        )
        with AttemptsFile(options.attempts, header) as file, CollectProgress(console) as progress:
            joules = _joules_of(file, options.records)
            try:
                await collect(
                    client,
                    prompts,
                    file,
                    chain=chain,
                    concurrency=options.concurrency,
                    progress=progress,
                )
                if joules is not None:
                    await joules.fill(progress.note)
            except CannotBeDone as exc:
                raise CannotBeDone(f"{exc}; {how_to_go_on(options.attempts)}") from exc


def _joules_of(file: AttemptsFile, records: Path | None) -> AttemptJoules | None:
    """What fills in joules; None without records. Those that cannot be read end it here."""
    if records is None:
        return None
    joules = AttemptJoules(records, file, clock=SystemClock(), sleep=asyncio.sleep)
    joules.look()
    return joules


def how_to_go_on(path: Path) -> str:
    """What a user does after a collection that was stopped."""
    return f"what was answered is in {path}, and the same command goes on from there"
