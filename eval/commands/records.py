"""`hs-eval records`: recorded answers joined with measured joules, so that a cascade can be judged.

Neither engines nor a GPU are needed. `records_study.py` does the work on outcomes,
`records_report.py` says what came of it.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eval.commands.calibrate_options import names_in
from eval.commands.option_values import cost, natural, positive, positive_number, share, weight
from eval.recorded.calibration_data import checked_names
from eval.recorded.loaded_energy import LoadedTiers
from eval.recorded.measured_energy import TokenEnergies, read_energy_runs, token_energies
from eval.recorded.question_tokens import QuestionTokens
from eval.recorded.records_csv import Records, outcomes_of, read_records
from eval.recorded.splits import (
    DEFAULT_N_CERTIFY,
    DEFAULT_N_FIT,
    Splits,
    bootstrap_splits,
    disjoint_splits,
)
from eval.reports.records_report import LoadedStudy, RecordsReport
from eval.rivals.records_draws import draws_of_studies
from eval.rivals.records_study import Study, study_of
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.errors import ConfigError

_MOST_GPUS = 32
_EPSILONS = (0.005, 0.01, 0.02)


def add_records_options(command: argparse.ArgumentParser) -> None:
    """The command line of `hs-eval records`."""
    command.description = (
        "Join recorded answers of several models with measured joules per token, and say what a "
        "certified cascade of them saves against the last tier alone, beside baselines."
    )
    command.add_argument("file", type=Path, help="CSV, one row per question and model")
    command.add_argument(
        "--energy", type=Path, required=True, metavar="CSV", help="measured runs, one row a run"
    )
    command.add_argument("--gpu", required=True, help="type of the runs to take, such as H100")
    command.add_argument("--task", help="task of the runs to take; default: of most models")
    command.add_argument(
        "--chain", type=names_in, help="the tiers, cheapest first, a,b,c; default: all, by joules"
    )
    command.add_argument(
        "--active-parameters",
        type=cost,
        action="append",
        default=[],
        metavar="MODEL=B",
        help="in 1e9, of a model that was not measured and whose name does not tell",
    )
    command.add_argument(
        "--prompt-weight",
        type=weight,
        default=1.0,
        metavar="W",
        help="what a prompt token costs in output tokens, 0 to 1; default 1",
    )
    command.add_argument("--epsilon", type=share, nargs="+", default=list(_EPSILONS))
    command.add_argument("--delta", type=share, default=0.1, help="chance that one is exceeded")
    command.add_argument("--loss", choices=("net", "harm"), default="net")
    command.add_argument("--n-fit", type=positive, help=f"default {DEFAULT_N_FIT}")
    command.add_argument("--n-certify", type=positive, help=f"default {DEFAULT_N_CERTIFY}")
    command.add_argument(
        "--holdout",
        action="store_true",
        help="fit, certify and test on questions of their own, instead of drawing with "
        "replacement from the whole file and testing on it",
    )
    command.add_argument(
        "--rate",
        type=positive_number,
        metavar="R",
        help="also show joules by the planner's model at so many requests per second",
    )
    command.add_argument(
        "--gpus", type=positive, default=_MOST_GPUS, help="with --rate: GPUs to plan with, at most"
    )
    command.add_argument("--seed", type=natural, default=0, help="of the draws; default 0")
    command.add_argument(
        "--seeds",
        type=positive,
        default=1,
        metavar="N",
        help="draw the questions N times, with seeds from --seed on, and show means over the draws",
    )
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def records_report(
    options: argparse.Namespace, advance: Callable[[str], None] = lambda _: None
) -> RecordsReport:
    """The study that the options ask for; `advance` is told which draw begins.

    Raises:
        ConfigError: A file cannot be used, a model's joules cannot be told, or an option names what
            is not there.
    """
    records = read_records(options.file)
    wished = checked_names(options.chain or records.models, {}, records.models)
    energies = token_energies(
        read_energy_runs(options.energy),
        wished,
        gpu=options.gpu,
        task=options.task,
        sizes_b=dict(options.active_parameters),
    )
    if options.chain is None:
        wished = _by_joules(records, energies, options.prompt_weight)
    tokens = QuestionTokens.of_records(records, wished)
    of_model = {found.model: found.per_token_j for found in energies.of_model}
    per_token_j = np.array([of_model[name] for name in wished])
    mean_tokens = _mean_tokens(tokens, wished, options.prompt_weight)
    outcomes, n_incomplete = outcomes_of(records, wished, mean_tokens * per_token_j)
    seeds = range(options.seed, options.seed + options.seeds)
    drawn = []
    for seed in seeds:
        advance(f"draw {seed - options.seed + 1} of {options.seeds}")
        splits = _splits(outcomes, options, seed)
        energies_j = tokens.energies_j(splits.test, per_token_j, options.prompt_weight)
        drawn.append((splits, _study(splits, tokens, energies_j, options, seed)))
    splits, study = drawn[0]
    return RecordsReport(
        study=study,
        draws=draws_of_studies([one for _, one in drawn], seeds) if len(seeds) > 1 else None,
        loaded=_loaded(options, study, wished, tokens),
        energies=energies,
        prompt_weight=options.prompt_weight,
        loss=options.loss,
        delta=options.delta,
        n_fit=splits.fit.n_questions,
        n_certify=splits.certify.n_questions,
        n_test=splits.test.n_questions,
        n_incomplete=n_incomplete,
        is_holdout=options.holdout,
        seed=options.seed,
    )


def _study(
    splits: Splits,
    tokens: QuestionTokens,
    energies_j: Floats,
    options: argparse.Namespace,
    seed: int,
) -> Study:
    return study_of(
        splits,
        tokens,
        energies_j,
        epsilons=options.epsilon,
        loss=options.loss,
        delta=options.delta,
        seed=seed,
    )


def _loaded(
    options: argparse.Namespace, study: Study, chain: tuple[str, ...], tokens: QuestionTokens
) -> LoadedStudy | None:
    """The cascade of every row and the last tier alone at the stated rate; None without one."""
    if options.rate is None:
        return None
    tiers = LoadedTiers(
        chain, tokens, gpu=options.gpu, n_gpus=options.gpus, requests_per_s=options.rate
    )
    return LoadedStudy(
        requests_per_s=options.rate,
        sizes=tiers.sizes(),
        last=tiers.energy({chain[-1]: 1.0}),
        rows=tuple(tiers.energy(row.cascade.asked) for row in study.rows),
    )


def _by_joules(records: Records, energies: TokenEnergies, prompt_weight: float) -> tuple[str, ...]:
    """The models by their mean joules of a request."""
    names = [found.model for found in energies.of_model]
    tokens = QuestionTokens.of_records(records, names)
    joules = tokens.mean_tokens(prompt_weight) * np.array(
        [found.per_token_j for found in energies.of_model]
    )
    return tuple(names[i] for i in np.argsort(joules, kind="stable"))


def _mean_tokens(tokens: QuestionTokens, names: Sequence[str], prompt_weight: float) -> Floats:
    """Those of a request to each of `names`, [n_tiers].

    Raises:
        ConfigError: A model's requests have none, so that they would cost nothing.
    """
    means = tokens.mean_tokens(prompt_weight)
    if not means.all():
        name = names[int(np.argmin(means))]
        raise ConfigError(
            f"no row of {name!r} has tokens that count (a prompt token counts {prompt_weight:g}), "
            "so it would cost nothing"
        )
    return means


def _splits(outcomes: Outcomes, options: argparse.Namespace, seed: int) -> Splits:
    if options.holdout:
        return disjoint_splits(outcomes, options.n_fit, options.n_certify, seed)
    n_fit, n_certify = options.n_fit or DEFAULT_N_FIT, options.n_certify or DEFAULT_N_CERTIFY
    return bootstrap_splits(outcomes, n_fit, n_certify, seed)
