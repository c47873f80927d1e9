"""Run `hs-calibrate prompts`: ask a running cascade labelled prompts, and calibrate from that."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from eval.commands.asking_options import (
    AskingOptions,
    AttemptsOptions,
    add_asking_options,
    add_attempts_options,
)
from eval.commands.calibration import CalibrationResult, calibrated, print_calibration
from eval.commands.calibration_options import CalibrationOptions, add_calibration_options
from eval.commands.command import Command, options_from
from eval.commands.recording import ask_cascade, how_to_go_on
from eval.questions.prompts import PromptSet, read_prompts
from eval.recorded.splits import disjoint_splits
from hybridserve_llm.calibration.outcomes import Outcomes, draws_of
from hybridserve_llm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratePromptsOptions:
    """Hold the options of `hs-calibrate prompts`; `file` has the prompts."""

    file: Path
    asking: AskingOptions
    attempts: AttemptsOptions
    calibration: CalibrationOptions


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="JSONL, one labelled prompt a line; or CSV")
    add_asking_options(command)
    add_attempts_options(command)
    add_calibration_options(command)


def _read(values: argparse.Namespace) -> CalibratePromptsOptions:
    return CalibratePromptsOptions(
        file=values.file,
        asking=options_from(AskingOptions, values),
        attempts=options_from(AttemptsOptions, values),
        calibration=options_from(CalibrationOptions, values),
    )


def _run(options: CalibratePromptsOptions, console: Console) -> CalibrationResult:
    """Record the answers that are missing, and calibrate from the file of attempts.

    Raises:
        ConfigError: The prompts file or an option is not allowed, there are too few prompts, or the
            file of attempts is of something else: nothing was asked then.
        CannotBeDone: The cascade does not answer; what was recorded stays.
    """
    calibration, asking = options.calibration, options.asking
    calibration.check()
    prompts = read_prompts(options.file, asking.grader, run_code=asking.run_code)
    if not calibration.bootstrap:
        _check_enough_prompts(prompts, options.file, calibration)
    ask_cascade(
        prompts,
        asking,
        options.attempts,
        chain=calibration.chain,
        costs=dict(calibration.cost),
        console=console,
    )
    return calibrated(options.attempts.attempts, calibration)


def _check_enough_prompts(prompts: PromptSet, path: Path, options: CalibrationOptions) -> None:
    """Check that as many answers would be enough to fit, certify and test; nothing is asked.

    Raises:
        ConfigError: There are too few prompts, or too few to certify such a harm even without one
            harmful answer: that takes ln(delta) / ln(1 - epsilon) questions.
    """
    splits = disjoint_splits(_unanswered(prompts), options.n_fit, options.n_certify, options.seed)
    needed = math.ceil(math.log(options.delta) / math.log1p(-options.epsilon))
    there = splits.certify.n_questions
    if options.loss == "harm" and there < needed:
        raise ConfigError(
            f"{path}: {there} of {len(prompts.prompts)} prompts are there to certify on; "
            f"harm <= {options.epsilon:g} at delta {options.delta:g} takes at least {needed}"
        )


def _unanswered(prompts: PromptSet) -> Outcomes:
    """Return outcomes without tiers, which can be split as answered ones will be."""
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


COMMAND = Command(
    description="Ask every tier of a running cascade every labelled prompt, record the attempts, "
    "and calibrate from them. After a stop the same command goes on.",
    add_options=_add_options,
    read=_read,
    run=_run,
    show=print_calibration,
    stopped=lambda options: f"stopped; {how_to_go_on(options.attempts.attempts)}",
    status=lambda result: result.status,
    json_help="one JSON object on stdout",
)
