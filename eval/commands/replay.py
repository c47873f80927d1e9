"""`hs-eval replay`: what a server with this policy would have done with recorded answers."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.commands.calibrate_options import names_in
from eval.commands.option_values import cost, natural, threshold
from eval.recorded.calibration_data import CalibrationData, read_calibration_data
from eval.reports.replay_report import SEEN, ReplayReport
from eval.rivals.other_ways import OtherWay, other_ways
from eval.rivals.policy_replay import ServedPolicy, Steps, decided, replay_of
from eval.rivals.replay_figures import replay_figures
from eval.rivals.served_records import compare
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.cascade.policy import ScorePolicy, TierRule
from hybridserve_llm.config.certificate import Certificate, load_certificate
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.promise.certified import certified_parts
from hybridserve_llm.promise.standing import score_policy

_NEVER = float("inf")


def add_replay_options(command: argparse.ArgumentParser) -> None:
    """The command line of `hs-eval replay`."""
    command.description = (
        "Replay recorded answers through the server's own policy code: a certificate's policy, "
        "a configuration's thresholds, or any others. No engine is needed."
    )
    command.add_argument("file", type=Path, help="recorded attempts (JSONL), or records (CSV)")
    policy = command.add_mutually_exclusive_group(required=True)
    policy.add_argument("--certificate", type=Path, metavar="JSON", help="its policy")
    policy.add_argument("--config", type=Path, metavar="YAML", help="its thresholds on scores")
    policy.add_argument(
        "--accept",
        type=threshold,
        action="append",
        metavar="TIER=SCORE",
        help="take this tier's answer at this score; of a tier that is not named, none is taken",
    )
    command.add_argument("--strict", action="store_true", help="the certificate's stricter policy")
    command.add_argument(
        "--chain", type=names_in, help="with --accept: the tiers, cheapest first; default: all"
    )
    command.add_argument(
        "--cost", type=cost, action="append", default=[], metavar="TIER=X", help="per request"
    )
    command.add_argument(
        "--served",
        type=Path,
        metavar="JSONL",
        help="records of a server, or a measured run, to compare with, by id",
    )
    command.add_argument("--decisions", type=Path, metavar="CSV", help="write every decision")
    command.add_argument("--seed", type=natural, default=0, help="of the intervals")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A policy, its data, what it is called, and whether it was made from the same questions."""

    served: ServedPolicy
    data: CalibrationData
    name: str
    has_seen: bool = False


def replay_report(options: argparse.Namespace) -> ReplayReport:
    """The replay that the options ask for; writes `--decisions`.

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
        ways=ways_beside(found.data, figures.cost, seed=options.seed),
        n_questions=outcomes.n_questions,
        cost_source=found.data.cost_source,
        remarks=(*found.data.remarks(), *([SEEN] if found.has_seen else [])),
        comparison=compare(options.served, ways, outcomes) if options.served else None,
    )


def ways_beside(data: CalibrationData, policy_cost: float, *, seed: int) -> tuple[OtherWay, ...]:
    """Other ways to answer the recorded questions, at a policy's cost."""
    outcomes = data.outcomes
    return other_ways(
        outcomes,
        np.tile(outcomes.costs, (outcomes.n_questions, 1)),
        policy_cost=policy_cost,
        seed=seed,
        answer_lengths=data.answer_lengths,
    )


def _named(options: argparse.Namespace) -> _Named:
    if options.strict and options.certificate is None:
        raise ConfigError("--strict goes with --certificate")
    if options.chain is not None and options.accept is None:
        raise ConfigError("--chain goes with --accept; a certificate and a file have their tiers")
    if options.certificate is not None:
        return _certified(options)
    if options.config is not None:
        config = load_config(options.config)
        data = _data(options, tuple(tier.name for tier in config.tiers))
        served = ServedPolicy(policy=score_policy(config))
        return _Named(served=served, data=data, name=f"thresholds of {options.config.name}")
    data = _data(options, options.chain)
    policy = thresholds(data.outcomes.tiers, dict(options.accept))
    words = ", ".join(f"{name} at {score:g}" for name, score in options.accept)
    return _Named(served=ServedPolicy(policy=policy), data=data, name=f"accept {words}")


def _data(options: argparse.Namespace, chain: tuple[str, ...] | None) -> CalibrationData:
    return read_calibration_data(options.file, chain, dict(options.cost))


def _certified(options: argparse.Namespace) -> _Named:
    certificate = load_certificate(options.certificate)
    served = certified_policy(options.certificate, certificate, strict=options.strict)
    data = _data(options, certificate.tiers)
    reads = certified_parts(certificate, certificate.tiers, is_certified=True).reads
    if reads.features and not data.outcomes.answer_feature_names:
        raise ConfigError(
            f"{options.certificate} reads features of answers, which {options.file} does not hold"
        )
    name = f"{'stricter policy' if options.strict else 'policy'} of {options.certificate.name}"
    return _Named(
        served=served,
        data=data,
        name=name,
        has_seen=certificate.data_sha256 == data.data_sha256,
    )


def certified_policy(path: Path, certificate: Certificate, *, strict: bool) -> ServedPolicy:
    """The certificate's policy as a server has it; `path` names it in messages.

    Raises:
        CannotBeDone: It has no such policy.
    """
    parts = certified_parts(certificate, certificate.tiers, is_certified=True)
    policy = parts.strict_policy if strict else parts.policy
    if policy is None:
        which = "stricter policy" if strict else "policy"
        raise CannotBeDone(f"{path} certifies no {which}")
    return ServedPolicy(policy=policy, models=parts.models)


def thresholds(tiers: Sequence[str], accept: dict[str, float]) -> ScorePolicy:
    """The server's policy of one threshold a tier; a tier without one accepts nothing.

    Raises:
        ConfigError: A threshold is for the last tier, whose answer is always taken, or for none.
    """
    for name in accept:
        if name not in tiers[:-1]:
            allowed = ", ".join(tiers[:-1])
            raise ConfigError(f"--accept {name}: not a tier below the last; allowed: {allowed}")
    return ScorePolicy(rules=tuple(TierRule(accept_at=accept.get(name, _NEVER)) for name in tiers))


def _write_decisions(path: Path, ways: Sequence[Steps], outcomes: Outcomes) -> None:
    """One row per question and tier that was asked, in order."""
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
