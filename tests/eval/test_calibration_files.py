"""What `hs-calibrate` writes, and the options that choose what is certified."""

import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from eval.calibrate import main
from eval.questions.prompts import read_prompts
from hybridserve_llm.calibration.loss_tests import p_value
from hybridserve_llm.config.certificate import Certificate, load_certificate
from launch.demo.export import line_of
from launch.demo.questions import distinct_questions

Capture = pytest.CaptureFixture[str]
FAST = ("--loss", "harm", "--epsilon", "0.05", "--n-fit", "200", "--n-certify", "400")
MODELS = ("small-1b", "mid-8b", "big-70b")


@pytest.fixture
def certificate(cascade_csv: Path, tmp_path: Path, capsys: Capture) -> Callable[..., Certificate]:
    """Runs `hs-calibrate records` and reads the certificate that it wrote."""

    def written(*options: str) -> Certificate:
        path = tmp_path / "certificate.json"
        assert main(["records", str(cascade_csv), *options, "--certificate", str(path)]) == 0
        capsys.readouterr()
        return load_certificate(path)

    return written


def test_a_certificate_holds_the_promise_and_the_counts_behind_it(
    certificate: Callable[..., Certificate],
) -> None:
    found = certificate(*FAST)
    assert (found.preset, found.loss, found.epsilon, found.delta) == ("accuracy", "harm", 0.05, 0.1)
    assert (found.n_fit, found.n_certify) == (200, 400)
    assert found.fingerprint is None  # a CSV file tells nothing of the cascade that answered
    policy = found.policy
    assert policy is not None
    shown = p_value(policy.n_lost, policy.n_rescued, policy.n, 0.05, loss="harm")
    assert policy.p_value == pytest.approx(shown)
    assert policy.p_value <= 0.1
    assert found.cost_ratio > 1


def test_the_cost_of_a_certificate_is_that_of_the_test_questions(
    cascade_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "certificate.json"
    assert main(["records", str(cascade_csv), *FAST, "--json", "--certificate", str(path)]) == 0
    ratio = json.loads(capsys.readouterr().out)["cost_ratio"]
    assert load_certificate(path).cost_ratio == pytest.approx(ratio)


def test_all_tiers_are_kept_where_that_is_asked_for(
    certificate: Callable[..., Certificate],
) -> None:
    found = certificate(*FAST, "--keep-all-tiers")
    assert found.chain == MODELS
    assert found.dropped == ()


def test_the_preset_energy_says_which_loss_is_certified_for_the_knee(
    certificate: Callable[..., Certificate],
) -> None:
    found = certificate("--preset", "energy", "--loss", "harm", "--n-fit", "200")
    policy = found.policy
    assert found.preset == "energy"
    assert policy is not None
    at = p_value(policy.n_lost, policy.n_rescued, policy.n, found.epsilon, loss="harm")
    below = p_value(policy.n_lost, policy.n_rescued, policy.n, found.epsilon - 0.0001, loss="harm")
    assert at <= 0.1 < below


def test_a_report_is_written_beside(cascade_csv: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "report"
    assert main(["records", str(cascade_csv), *FAST, "--report", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["calibration-report.html", "calibration-report.md"]
    assert "hs-calibrate" in (folder / "calibration-report.md").read_text()


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (("--bootstrap", "--certificate", "c.json"), "--certificate does not go with --bootstrap"),
        (("--keep-all-tiers", "--preset", "energy"), "--keep-all-tiers goes with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    cascade_csv: Path, capsys: Capture, options: tuple[str, ...], needle: str
) -> None:
    assert main(["records", str(cascade_csv), *FAST, *options]) == 2
    assert needle in capsys.readouterr().err


def test_a_certificate_that_cannot_be_written_is_one_clear_error(
    cascade_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "none" / "c.json"
    assert main(["records", str(cascade_csv), *FAST, "--certificate", str(path)]) == 2
    assert "cannot write certificate" in capsys.readouterr().err


def test_exported_demo_questions_are_labelled_prompts(tmp_path: Path) -> None:
    question = next(distinct_questions("calibration", seed=3))
    path = tmp_path / "questions.jsonl"
    path.write_bytes(line_of(question, "calibration"))
    (prompt,) = read_prompts(path, None).prompts
    assert prompt.question == ("calibration", question.key)
    assert orjson.loads(path.read_bytes())["reference"] == question.answer
