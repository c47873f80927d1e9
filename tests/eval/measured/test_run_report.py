"""`hs-eval report`: the figures of measured runs, worked out by hand, and the two files."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec.structs import replace

from eval.cli import main
from eval.recorded.attempts import RecordedAttempt
from eval.recorded.measured_run import (
    ALONE,
    CASCADE,
    EngineUse,
    MeasuredBlock,
    ServedAnswer,
    differing_runs,
    read_run,
)
from eval.recorded.run_outcomes import (
    pooled,
    priced,
    run_outcomes,
    shared,
    total_use,
    use_without_idle,
)
from eval.reports.run_report import certified_on
from hybridserve_llm.config.certificate import load_certificate

Make = Callable[..., Any]
Capture = pytest.CaptureFixture[str]
N, BLOCK, IDLE_RATE = 240, 20, 0.01


def use(cpu_s: float | None, active_j: float | None = None) -> EngineUse:
    """As the run has it, which draws 5 J of idle time a block where there is a meter."""
    idle_j = None if active_j is None else 5.0
    source = None if active_j is None else "nvml_energy"
    return EngineUse(cpu_s=cpu_s, active_j=active_j, idle_j=idle_j, energy_source=source)


def reported(arguments: list[str], capsys: Capture) -> dict[str, Any]:
    assert main(["report", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_figures_are_these(run_path: Path, capsys: Capture) -> None:
    found = reported([str(run_path)], capsys)
    total = found["total"]
    # All pay 0.1 for the small tier, a quarter 1.0 for the giant: 0.35 against 1.0.
    assert total["cascade"] == pytest.approx(0.35)
    assert total["alone"] == pytest.approx(1.0)
    assert total["ratio"] == pytest.approx(1 / 0.35)
    assert total["ratio_interval"] == pytest.approx([1 / 0.35, 1 / 0.35])  # all blocks alike
    # The cascade decides as the perfect chain does. Wasted: the small tier at the hard quarter.
    assert total["perfect_chain"] == pytest.approx(0.35)
    assert total["share_of_perfect"] == pytest.approx(1.0)
    assert total["shadows"] == pytest.approx(0.25 / 6)
    assert total["wasted"] == pytest.approx(0.25 * 0.1)
    assert (found["accuracy"], found["accuracy_last"], found["harm"]) == (1.0, 1.0, 0.0)
    assert found["asked"] == {"small": 1.0, "giant": 0.25}
    assert found["answered"] == {"small": 0.75, "giant": 0.25}
    assert (found["unit"], found["energy_sources"]) == ("CPU-s", None)
    assert found["n_shadowed"] == N // BLOCK
    latency = {one["name"]: (one["n"], one["median_s"]) for one in found["latencies"]}
    assert latency["cascade, answered below giant"] == (180, 0.1)
    assert latency["giant alone"] == (240, 0.5)


def test_idle_use_is_told_apart(run_path: Path, capsys: Capture) -> None:
    found = reported([str(run_path)], capsys)
    assert found["idle_rates"] == pytest.approx({"small": IDLE_RATE, "giant": IDLE_RATE})
    # A block of 20 questions takes 10 s; two idle engines use 0.01 a second each.
    net = found["without_idle"]
    assert net["cascade"] == pytest.approx(0.35 - 2 * 0.01 * 10 / 20)
    assert net["alone"] == pytest.approx(1.0 - 0.01 * 10 / 20)


def test_other_ways_stand_beside_the_cascade(run_path: Path, capsys: Capture) -> None:
    found = {way["name"]: way for way in reported([str(run_path)], capsys)["ways"]}
    assert (found["small alone"]["accuracy"], found["small alone"]["cost"]) == pytest.approx(
        (0.75, 0.1)
    )
    # At 0.35 random escalation asks the giant at a quarter: 0.75 + 0.25 * 0.25.
    assert found["random escalation"]["accuracy"] == pytest.approx(0.8125)
    assert found["random escalation"]["accuracy_interval"] is None
    # The score tells easy from hard; the half that holds more hard questions than the other has to
    # take some of them, to cost no more than 0.35.
    assert 0.95 < found["raw score: recorded"]["accuracy"] <= 1.0
    assert found["oracle"]["cost"] == pytest.approx(0.75 * 0.1 + 0.25 * 1.0)
    assert {"length only", "router on the prompt", "perfect chain"} <= set(found)
    # Every answer is as long and every prompt is alike: neither tells anything. A half of the
    # questions goes to one tier or to the other as a whole.
    assert found["length only"]["accuracy"] <= 0.8125


def test_joules_take_the_place_of_cpu_seconds_where_all_are_metered(
    tmp_path: Path, write_run: Make, capsys: Capture
) -> None:
    def in_joules(block: MeasuredBlock) -> MeasuredBlock:
        used = {t: use(one.cpu_s, 30 * (one.cpu_s or 0.0)) for t, one in block.used.items()}
        return replace(block, used=used)

    path = write_run(tmp_path / "joules.jsonl", change=in_joules)
    found = reported([str(path)], capsys)
    assert (found["unit"], found["energy_sources"]) == ("J", "nvml_energy")
    # 30 J for a CPU-second, and 5 J of idle time for each engine and block of 20 questions.
    assert found["total"]["cascade"] == pytest.approx(30 * 0.35 + 2 * 5 / 20)
    assert found["without_idle"]["cascade"] == pytest.approx(30 * 0.35)


def test_one_block_without_a_meter_makes_it_cpu_seconds_and_mixes_nothing(
    tmp_path: Path, write_run: Make, capsys: Capture
) -> None:
    def in_joules(block: MeasuredBlock) -> MeasuredBlock:
        is_unknown = (block.way, block.index) == (ALONE, 3)
        used = {t: use(one.cpu_s, None if is_unknown else 1.0) for t, one in block.used.items()}
        return replace(block, used=used)

    path = write_run(tmp_path / "joules.jsonl", change=in_joules)
    assert reported([str(path)], capsys)["unit"] == "CPU-s"


def test_nothing_measured_is_status_3(tmp_path: Path, write_run: Make, capsys: Capture) -> None:
    def unknown(block: MeasuredBlock) -> MeasuredBlock:
        return replace(block, used={tier: use(None) for tier in block.used})

    path = write_run(tmp_path / "unknown.jsonl", change=unknown)
    assert main(["report", str(path)]) == 3
    assert "neither joules nor CPU-seconds" in capsys.readouterr().err


def test_a_block_is_shared_by_tokens_and_sums_to_what_was_measured(run_path: Path) -> None:
    assert shared(6.0, {(None, "a"): 10.0, (None, "b"): 20.0}) == {
        (None, "a"): 2.0,
        (None, "b"): 4.0,
    }
    assert shared(6.0, {(None, "a"): None, (None, "b"): 20.0}) == {
        (None, "a"): 3.0,
        (None, "b"): 3.0,
    }
    run = pooled([read_run(run_path)])
    data = run_outcomes(run, total_use("CPU-s"))
    measured = math.fsum(
        one.cpu_s or 0.0 for _, block in run.of_way(CASCADE) for one in block.used.values()
    )
    assert data.cascade_costs.sum() == pytest.approx(measured)


def test_questions_are_joined_once_and_priced_in_two_ways(run_path: Path) -> None:
    run = pooled([read_run(run_path)])
    net = use_without_idle("CPU-s", run.idle)
    found, expected = (
        priced(run_outcomes(run, total_use("CPU-s")), run, net),
        run_outcomes(run, net),
    )
    assert np.array_equal(found.costs, expected.costs)
    assert np.array_equal(found.cascade_costs, expected.cascade_costs)
    assert np.array_equal(found.outcomes.costs, expected.outcomes.costs)


def test_a_line_of_a_run_has_these_keys(run_path: Path) -> None:
    """Files are read by programs of other versions and by other people's."""
    blocks = [json.loads(line) for line in run_path.read_text().splitlines()[1:]]
    served = next(block for block in blocks if block.get("way") == CASCADE)
    assert served["kind"] == "block"
    assert sorted(served["answers"][0]["attempts"][0]) == sorted(
        [
            "tier",
            "decision",
            "reason",
            "score",
            "confidence",
            "risk",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "latency_s",
        ]
    )


def test_a_question_that_failed_is_left_out_and_counted(
    tmp_path: Path, write_run: Make, capsys: Capture
) -> None:
    def failing(block: MeasuredBlock) -> MeasuredBlock:
        if (block.way, block.index) != (CASCADE, 0):
            return block
        first, *others = block.answers
        lost = replace(first, answer=None, correct=None, tier=None, attempts=(), fault="HTTP 504")
        return replace(block, answers=(lost, *others))

    path = write_run(tmp_path / "failing.jsonl", change=failing)
    found = reported([str(path)], capsys)
    assert (found["n"], found["n_left_out"]) == (N - 1, 1)


def test_page_and_markdown_say_all_and_need_nothing_else(
    run_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    page, text = tmp_path / "out" / "r.html", tmp_path / "out" / "r.md"
    arguments = [str(run_path), "--html", str(page), "--markdown", str(text)]
    assert main(["report", *arguments]) == 0
    assert "2.86x cheaper" in " ".join(capsys.readouterr().out.split())
    html, markdown = page.read_text(), text.read_text()
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert "a &lt;test&gt; machine" in html
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    assert html.count("<figure>") == 5
    for words in ("CPU-s a request", "random escalation", "perfect chain", "abc1234", "16"):
        assert words in html
        assert words in markdown
    assert "no certificate" in markdown
    embedded = re.search(r'id="report-data">(.*?)</script>', html, re.DOTALL)
    assert embedded
    assert json.loads(embedded[1])["figures"]["n"] == N


@pytest.mark.slow
def test_with_its_certificate_confidence_and_decisions_are_judged(
    run_path: Path, tmp_path: Path, capsys: Capture, with_certificate: Make
) -> None:
    path, certificate = with_certificate(run_path, tmp_path, capsys)
    page = tmp_path / "r.html"
    arguments = [str(path), "--certificate", str(certificate), "--html", str(page)]
    found = reported(arguments, capsys)
    metrics = {one["name"]: one["value"] for one in found["metrics"]["small"]}
    # Every easy answer is right and has the higher score.
    assert metrics["AUROC (right)"] == 1.0
    assert metrics["PRR (rejection 0 to 100 %)"] == pytest.approx(1.0)
    assert metrics["AUDC, normalised"] == pytest.approx(1.0)
    assert metrics["coverage at 1 % wrong"] == 0.75
    assert found["comparison"]["n"] == N
    # The run itself went by a threshold on the score; at epsilon 0.1 a few hard ones more are kept.
    assert 0.9 * N <= found["comparison"]["n_same_tier"] <= N
    costs = np.array([point["mean_cost"] for point in found["path"]])
    assert (np.diff(costs) <= 1e-9).all()  # laxer is cheaper
    assert page.read_text().count("<figure>") == 6


def test_what_a_certificate_counted_is_told_with_its_exact_bound() -> None:
    demo = Path(__file__).parents[3] / "launch/demo/certificate.json"
    policy = load_certificate(demo).policy
    assert policy is not None
    # P(Binomial(1500, x) <= 8) = 0.1 at x = 0.864 %, as 2 x 1500 x is about chi2(0.9; 18) = 25.99.
    assert certified_on(policy, {"loss": "harm", "delta": 0.1}) == (
        "Certify questions: of 1500 the policy loses 8 and rescues 17; p = 0.0368 of the "
        "hypothesis that the loss is above epsilon. Exact bound of the harm at 0.9: 0.86 points."
    )
    assert "Exact bound" not in certified_on(policy, {"loss": "net", "delta": 0.1})


@pytest.mark.slow
def test_questions_that_a_certificate_was_made_from_are_no_test_of_it(
    run_path: Path, tmp_path: Path, capsys: Capture, with_certificate: Make, with_header: Make
) -> None:
    path, certificate = with_certificate(run_path, tmp_path, capsys)
    text = tmp_path / "r.md"
    assert main(["report", str(path), "--markdown", str(text)]) == 0
    assert "No test: on the 240 questions" in text.read_text()
    assert "it was calibrated on" in text.read_text()
    assert "within epsilon" not in text.read_text()
    asked = json.loads(path.read_text().splitlines()[0])["asked"]
    fresh = with_header(path, tmp_path / "fresh.jsonl", asked=asked | {"data_sha256": "1" * 64})
    assert main(["report", str(fresh), "--markdown", str(text)]) == 0
    # No harm at 240 questions: at most 1 - 0.025^(1/240) = 1.53 %, which is below 10 %.
    assert "0.00 to 1.53 points; exact). All of it is within epsilon." in text.read_text()
    capsys.readouterr()
    for run, n_remarks in ((path, 1), (fresh, 0)):
        assert main(["replay", str(run), "--certificate", str(certificate), "--json"]) == 0
        remarks = json.loads(capsys.readouterr().out)["remarks"]
        assert len([line for line in remarks if "calibrated on" in line]) == n_remarks


@pytest.mark.slow
def test_questions_of_a_group_widen_every_interval_and_decide_the_verdict(
    write_run: Make, tmp_path: Path, capsys: Capture, with_header: Make
) -> None:
    def wrong_for_some(block: MeasuredBlock) -> MeasuredBlock:
        """Users of eight questions; every seventh is harmed at all six that are easy."""
        answers = tuple(
            replace(a, correct=False) if number(a) // 8 % 7 == 0 and a.tier == "small" else a
            for a in block.answers
        )
        recorded = tuple(replace(a, group=f"user {number(a) // 8}") for a in block.recorded)
        return replace(block, answers=answers, recorded=recorded)

    def number(one: ServedAnswer | RecordedAttempt) -> int:
        return int(one.query_id.removeprefix("q"))

    path = write_run(tmp_path / "run.jsonl", change=wrong_for_some)
    found = reported([str(path)], capsys)
    # Users 0, 7, 14, 21 and 28 of 30: 30 of 240 questions, 12.5 %. Of 30 independent users the
    # standard error is 0.75 * sqrt(1/6 * 5/6 / 30) = 5.1 points; Wilson's would be 8.9 to 17.3 %.
    assert (found["has_groups"], found["n_harmed"]) == (True, 30)
    low, high = found["harm_interval"]
    assert (low, high) == pytest.approx((0.025, 0.225), abs=0.03)
    assert found["accuracy_interval"] == pytest.approx([1 - high, 1 - low])
    short = next(row for row in found["kinds"] if row["name"].startswith("answer: "))
    assert short["harm_interval"] == pytest.approx([low, high])
    told = {"certified": True, "epsilon": 0.08, "delta": 0.1, "loss": "harm"}
    told |= {"chain": ["small", "giant"], "n_certify": 9, "n_fit": 9, "labels": "reference"}
    told |= {"created": "2026-11-24", "data_sha256": "1" * 64}
    text = tmp_path / "r.md"
    other = with_header(path, tmp_path / "other.jsonl", certificate=told)
    assert main(["report", str(other), "--markdown", str(text)]) == 0
    # The exact interval of 30 in 240 independent questions, 8.6 to 17.4 %, would be all above.
    assert "bootstrap over groups). That does not show" in text.read_text()


def test_runs_of_other_settings_are_not_pooled(
    run_path: Path, tmp_path: Path, capsys: Capture, with_header: Make
) -> None:
    other = with_header(run_path, tmp_path / "other.jsonl", concurrency=1)
    assert main(["report", str(run_path), str(other)]) == 2
    assert "concurrency (16 there, 1 now)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "now", "words"),
    [
        (
            {"certificate": {"created": "Monday", "certified": True}},
            {"certificate": {"created": "Tuesday", "certified": True}},
            "other certificate (made Monday there, made Tuesday now)",
        ),
        ({}, {"certificate": {"created": "Tuesday"}}, "(none there, made Tuesday now)"),
        ({"state": "certified"}, {"state": "last_tier_only"}, "state (certified there"),
        ({"thresholds": [{"risk": 0.1}]}, {"thresholds": [{"risk": 0.2}]}, "thresholds"),
        ({}, {"served_model_name": "other"}, "served_model_name ('hybridserve' there"),
    ],
)
def test_runs_that_went_by_another_policy_are_not_mixed(
    there: dict[str, Any],
    now: dict[str, Any],
    words: str,
    run_path: Path,
    tmp_path: Path,
    capsys: Capture,
    with_header: Make,
) -> None:
    first = with_header(run_path, tmp_path / "first.jsonl", **there)
    second = with_header(run_path, tmp_path / "second.jsonl", **now)
    assert main(["report", str(first), str(second)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_file_that_tells_no_thresholds_goes_with_one_that_does(run_path: Path) -> None:
    header = read_run(run_path).header
    newer = replace(header, state="uncertified", thresholds=[{"score_at_least": -1.0}])
    assert differing_runs([header, newer]) == ""
    assert differing_runs([newer, newer]) == ""


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"certificate": None}, "had no certificate"),
        ({"certificate": {"created": "last year"}}, "and that of the run is last year"),
        ({"state": "last_tier_only"}, "sent everything to its last tier"),
    ],
)
def test_a_certificate_that_the_run_did_not_go_by_is_refused(
    header: dict[str, Any],
    words: str,
    run_path: Path,
    tmp_path: Path,
    capsys: Capture,
    with_certificate: Make,
    with_header: Make,
) -> None:
    path, certificate = with_certificate(run_path, tmp_path, capsys)
    other = with_header(path, tmp_path / "other.jsonl", **header)
    assert main(["report", str(other), "--certificate", str(certificate)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_the_same_questions_twice_are_not_pooled(run_path: Path, capsys: Capture) -> None:
    assert main(["report", str(run_path), str(run_path)]) == 2
    assert "a second answer" in capsys.readouterr().err


def test_a_certificate_of_another_cascade_is_refused(
    run_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    certificate = Path(__file__).parents[3] / "launch/demo/certificate.json"
    lines = run_path.read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    header["asked"]["fingerprint"] = {"hash": "sha256:other", "parts": {}}
    path = tmp_path / "other.jsonl"
    path.write_text(json.dumps(header) + "\n" + "".join(lines[1:]))
    assert main(["report", str(path), "--certificate", str(certificate)]) == 2
    assert "and the run is of sha256:other" in capsys.readouterr().err


def test_a_run_is_replayed_and_swept_as_recorded_attempts(run_path: Path, capsys: Capture) -> None:
    arguments = [str(run_path), "--accept", "small=-1", "--json"]
    assert main(["replay", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_questions"], found["answered"]) == (N, {"small": 0.75, "giant": 0.25})
    assert main(["sweep", str(run_path), "--json"]) == 0
    swept = json.loads(capsys.readouterr().out)
    # As measured: 0.1 for all, 1.0 (the giant asked plainly, not 1.1) for the hard quarter.
    assert swept["beside"] == pytest.approx(0.1 + 1.0 / 4)
    assert swept["cost_source"] == "CPU-s per request, as measured in the tiers' own blocks"
    assert [way["name"] for way in swept["ways"]][:3] == [
        "small alone",
        "giant alone",
        "random escalation",
    ]


def test_a_run_without_meters_is_priced_by_tokens_and_one_with_joules_by_them(
    write_run: Make, tmp_path: Path, capsys: Capture
) -> None:
    def costs(name: str, cpu_s: float | None, active_j: float | None) -> tuple[float, str]:
        def change(block: MeasuredBlock) -> MeasuredBlock:
            return replace(block, used={tier: use(cpu_s, active_j) for tier in block.used})

        path = write_run(tmp_path / name, change=change)
        assert main(["replay", str(path), "--accept", "small=0", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["cost_last"], found["cost_source"]

    # 100 tokens x 70e9 parameters.
    assert costs("none.jsonl", None, None) == (
        pytest.approx(7000),
        "tokens x active parameters (1e9), as the cascade reports them",
    )
    # A block of 20 questions: 35 J booked to requests and 5 J of idle time.
    in_joules = "J per request (nvml_energy), as measured in the tiers' own blocks"
    assert costs("joules.jsonl", 1.0, 35.0) == (pytest.approx(2.0), in_joules)


def test_a_run_is_replayed_beside_its_own_decisions(run_path: Path, capsys: Capture) -> None:
    path = str(run_path)
    for score, n_differing in (("-1", 0), ("-0.05", 180)):  # of the second nothing is taken
        arguments = [path, "--accept", f"small={score}", "--served", path, "--json"]
        assert main(["replay", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)["served"]
        assert (found["n_compared"], len(found["differing"])) == (N, n_differing)


def test_short_blocks_are_said_to_be_short(run_path: Path, tmp_path: Path) -> None:
    text = tmp_path / "r.md"
    assert main(["report", str(run_path), "--markdown", str(text)]) == 0
    assert "Blocks of 20 questions, 16 at a time, are short" in text.read_text()
