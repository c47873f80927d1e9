"""Run `hs-eval replay`: replay recorded answers through a policy of the server."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from eval.commands.command import Command, options_from
from eval.commands.option_values import comma_separated, model_cost, natural, tier_threshold
from eval.recorded.calibration_data import CalibrationData, read_calibration_data
from eval.reports.replay_report import SEEN, ReplayReport, print_replay_report
from eval.rivals.given_policies import certified_policy, threshold_policy
from eval.rivals.other_ways import ways_at_cost
from eval.rivals.policy_replay import ServedPolicy, Steps, decided, replay_of
from eval.rivals.replay_figures import replay_figures
from eval.rivals.served_records import compare
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.config.certificate import load_certificate
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.promise.certified import certified_parts
from hybridserve_llm.promise.standing import score_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """Hold the options of `hs-eval replay`; one of the first three fields after `file` is given.

    Attributes:
        file: The recorded answers.
        certificate: File of a certificate, whose policy is replayed.
        config: File of a configuration, whose thresholds are replayed.
        accept: Pairs of a tier and its threshold.
        strict: Whether the certificate's stricter policy is meant.
        chain: With `accept`, the tiers, cheapest first; None for all.
        cost: Pairs of a tier and its cost of a request.
        served: Records of a server, or a measured run, to compare with; None for no comparison.
        decisions: CSV file to write every decision to; None for no file.
        seed: Seed of the intervals.
    """

    file: Path
    certificate: Path | None
    config: Path | None
    accept: list[tuple[str, float]] | None
    strict: bool
    chain: tuple[str, ...] | None
    cost: list[tuple[str, float]]
    served: Path | None
    decisions: Path | None
    seed: int


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="recorded attempts (JSONL), or records (CSV)")
    policy = command.add_mutually_exclusive_group(required=True)
    policy.add_argument("--certificate", type=Path, metavar="JSON", help="its policy")
    policy.add_argument("--config", type=Path, metavar="YAML", help="its thresholds on scores")
    policy.add_argument(
        "--accept",
        type=tier_threshold,
        action="append",
        metavar="TIER=SCORE",
        help="take this tier's answer at this score; of a tier that is not named, none is taken",
    )
    command.add_argument("--strict", action="store_true", help="the certificate's stricter policy")
    command.add_argument(
        "--chain",
        type=comma_separated,
        help="with --accept: the tiers, cheapest first; default: all",
    )
    command.add_argument(
        "--cost", type=model_cost, action="append", default=[], metavar="TIER=X", help="per request"
    )
    command.add_argument(
        "--served",
        type=Path,
        metavar="JSONL",
        help="records of a server, or a measured run, to compare with, by id",
    )
    command.add_argument("--decisions", type=Path, metavar="CSV", help="write every decision")
    command.add_argument("--seed", type=natural, default=0, help="of the intervals")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """Hold a policy, its data, its name, and whether it was made from the same questions."""

    served: ServedPolicy
    data: CalibrationData
    name: str
    has_seen: bool = False


def _run(options: ReplayOptions, _: Console) -> ReplayReport:
    """Replay the policy that the options name, and write `--decisions`.

    Raises:
        ConfigError: A file cannot be used, or the policy is for other tiers than were recorded.
        CannotBeDone: The certificate has no such policy.
    """
    found = _named(options)
    outcomes = found.data.outcomes
    ways = decided(found.served, outcomes)
    if options.decisions is not None:
        _write_decisions(options.decisions, ways, outcomes)
    figures = replay_figures(replay_of(ways, outcomes), outcomes, seed=options.seed)
    return ReplayReport(
        policy=found.name,
        figures=figures,
        ways=ways_at_cost(found.data, figures.cost, seed=options.seed),
        n_questions=outcomes.n_questions,
        cost_source=found.data.cost_source,
        remarks=(*found.data.remarks(), *([SEEN] if found.has_seen else [])),
        comparison=compare(options.served, ways, outcomes) if options.served else None,
    )


def _named(options: ReplayOptions) -> _Named:
    if options.strict and options.certificate is None:
        raise ConfigError("--strict goes with --certificate")
    if options.chain is not None and options.accept is None:
        raise ConfigError("--chain goes with --accept; a certificate and a file have their tiers")
    if options.certificate is not None:
        return _certified(options, options.certificate)
    if options.config is not None:
        config = load_config(options.config)
        data = _data(options, tuple(tier.name for tier in config.tiers))
        served = ServedPolicy(policy=score_policy(config))
        return _Named(served=served, data=data, name=f"thresholds of {options.config.name}")
    data = _data(options, options.chain)
    accept = options.accept or []
    policy = threshold_policy(data.outcomes.tiers, dict(accept))
    words = ", ".join(f"{name} at {score:g}" for name, score in accept)
    return _Named(served=ServedPolicy(policy=policy), data=data, name=f"accept {words}")


def _data(options: ReplayOptions, chain: tuple[str, ...] | None) -> CalibrationData:
    return read_calibration_data(options.file, chain, dict(options.cost))


def _certified(options: ReplayOptions, path: Path) -> _Named:
    certificate = load_certificate(path)
    served = certified_policy(path, certificate, strict=options.strict)
    data = _data(options, certificate.tiers)
    reads = certified_parts(certificate, certificate.tiers, is_certified=True).reads
    if reads.features and not data.outcomes.answer_feature_names:
        raise ConfigError(f"{path} reads features of answers, which {options.file} does not hold")
    name = f"{'stricter policy' if options.strict else 'policy'} of {path.name}"
    return _Named(
        served=served,
        data=data,
        name=name,
        has_seen=certificate.data_sha256 == data.data_sha256,
    )


def _write_decisions(path: Path, ways: Sequence[Steps], outcomes: Outcomes) -> None:
    """Write one row per question and tier that was asked, in order."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "query_id", "tier", "decision", "reason"))
            for question, steps in zip(outcomes.questions, ways, strict=True):
                names = question if isinstance(question, tuple) else (None, question)
                for step in steps:
                    row = (outcomes.tiers[step.tier], step.verdict.value, step.reason)
                    writer.writerow((*names, *row))
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc}") from exc


COMMAND = Command(
    description="Replay recorded answers through the server's own policy code: a certificate's "
    "policy, a configuration's thresholds, or any others. No engine is needed.",
    add_options=_add_options,
    read=partial(options_from, ReplayOptions),
    run=_run,
    show=print_replay_report,
)
