"""Read the options that both commands of `hs-calibrate` have."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.commands.option_values import comma_separated, model_cost, natural, positive, share
from eval.recorded.splits import DEFAULT_N_CERTIFY, DEFAULT_N_FIT
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """Hold how to calibrate, and which files to write.

    Attributes:
        chain: The tiers, cheapest first; None for all.
        cost: Pairs of a model and its cost of a request.
        n_fit: Questions to fit on, None for the default; `n_certify` likewise.
        decisions: CSV file of who answers each question; None for no file.
        certificate: JSON file that a cascade serves by.
        report: Folder of report.html and report.md.
    """

    chain: tuple[str, ...] | None
    preset: Literal["accuracy", "energy"]
    epsilon: float
    delta: float
    loss: Loss
    keep_all_tiers: bool
    cost: list[tuple[str, float]]
    n_fit: int | None
    n_certify: int | None
    bootstrap: bool
    decisions: Path | None
    certificate: Path | None
    report: Path | None
    seed: int

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            ConfigError: Two of them do not.
        """
        if self.bootstrap and self.certificate is not None:
            raise ConfigError(
                "--certificate does not go with --bootstrap: the same questions would be fitted "
                "and certified on, and nothing would be promised"
            )
        if self.keep_all_tiers and self.preset == "energy":
            raise ConfigError("--keep-all-tiers goes with --preset accuracy only")


def add_calibration_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `CalibrationOptions`."""
    add = command.add_argument
    add("--chain", type=comma_separated, help="the tiers, cheapest first, a,b,c; default: all")
    add(
        "--preset",
        choices=("accuracy", "energy"),
        default="accuracy",
        help="accuracy keeps the loss within epsilon; energy takes the knee of cost against loss "
        "and certifies what it loses",
    )
    add("--epsilon", type=share, default=0.02, help="greatest loss of preset accuracy, e.g. 0.02")
    add("--delta", type=share, default=0.1, help="chance that it is exceeded")
    add("--loss", choices=("net", "harm"), default="net")
    add(
        "--keep-all-tiers",
        action="store_true",
        help="drop no tier, even one that may not pay; for preset accuracy",
    )
    add(
        "--cost",
        type=model_cost,
        action="append",
        default=[],
        metavar="MODEL=X",
        help="per request",
    )
    add("--n-fit", type=positive, help=f"default {DEFAULT_N_FIT}")
    add("--n-certify", type=positive, help=f"default {DEFAULT_N_CERTIFY}")
    add("--bootstrap", action="store_true", help="draw both with replacement; test on the file")
    add("--decisions", type=Path, metavar="CSV", help="write who answers each question")
    add("--certificate", type=Path, metavar="JSON", help="write what a cascade serves by")
    add("--report", type=Path, metavar="DIR", help="folder for report.html and report.md")
    add("--seed", type=natural, default=0)
