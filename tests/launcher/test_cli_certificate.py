"""`hs-launch` with a certificate: what is refused before anything starts, and what lets it pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.planner.plan import Plan
from launch.cli import main

Values = Callable[..., dict[str, Any]]
Write = Callable[[dict[str, Any] | str | None], Path]


@pytest.fixture
def config_file(tmp_path: Path) -> Write:
    """Writes a cascade of small and giant whose policy is this certificate's."""

    def write(certificate: dict[str, Any] | str | None) -> Path:
        if certificate is not None:
            is_text = isinstance(certificate, str)
            text = certificate if is_text else json.dumps(certificate)
            (tmp_path / "certificate.json").write_text(str(text))
        tiers = [{"name": "small", "model": "some/small"}, {"name": "giant", "model": "some/giant"}]
        path = tmp_path / "cascade.yaml"
        path.write_text(yaml.safe_dump({"certificate": "certificate.json", "tiers": tiers}))
        return path

    return write


def dry_run(path: Path, *options: str) -> int:
    return main(["--config", str(path), "--dry-run", "--json", "--cpu", *options])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says why."""
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("hs-launch: error: ")
    return line


def test_a_cascade_that_pays_is_planned(
    config_file: Write, certificate_values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(config_file(certificate_values())) == 0
    report = json.loads(capsys.readouterr().out)
    plan = Plan.from_json(json.dumps(report["plan"]))
    names = [placement.name for placement in plan.placements]
    assert names == ["small/0", "giant/0"]


UNPROFITABLE: dict[str, dict[str, Any]] = {
    "costs more": {
        "cost": {
            "source": "joules",
            "tiers": {"small": 3.0, "giant": 10.0},
            "cascade": 11.5,
            "last": 10.0,
        }
    },
    "nothing certified": {"certified": False, "policy": None, "chain": ["giant"], "models": []},
}


@pytest.mark.parametrize("change", UNPROFITABLE.values(), ids=UNPROFITABLE)
def test_a_cascade_that_does_not_pay_is_refused_unless_a_person_wants_it(
    config_file: Write,
    certificate_values: Values,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    path = config_file(certificate_values(**change))
    assert dry_run(path) == 3
    assert "does not pay" in refused(capsys)
    assert dry_run(path, "--allow-unprofitable") == 0


def test_the_refusal_holds_the_figures(
    config_file: Write, certificate_values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(config_file(certificate_values(**UNPROFITABLE["costs more"]))) == 3
    line = refused(capsys)
    assert "(joules): small 3, giant 10; cascade 11.5 against giant alone 10" in line
    assert "--allow-unprofitable" in line


def test_a_dropped_tier_is_named(
    config_file: Write, certificate_values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = {"small": 1.0, "medium": 9.0, "giant": 10.0}
    cost = {"source": "joules", "tiers": tiers, "cascade": 4.0, "last": 10.0}
    assert dry_run(config_file(certificate_values(tiers=list(tiers), cost=cost))) == 3
    assert "tier medium does not pay and would be asked nothing" in refused(capsys)


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (None, "cannot read certificate {}: No such file or directory"),
        ("nonsense", "certificate {} is not JSON: "),
        ("{}", "certificate {}: schema: Field required"),
    ],
)
def test_a_certificate_that_cannot_be_read_is_a_fault_of_the_configuration(
    config_file: Write, capsys: pytest.CaptureFixture[str], certificate: str | None, expected: str
) -> None:
    path = config_file(certificate)
    assert dry_run(path) == 2
    where = path.with_name("certificate.json")
    assert refused(capsys).startswith("hs-launch: error: " + expected.format(where))


def test_the_other_flags_need_nothing_on_a_dry_run(
    config_file: Write, certificate_values: Values
) -> None:
    path = config_file(certificate_values())
    assert dry_run(path, "--allow-uncertified", "--acknowledge-alarm", "Ada") == 0


def test_an_acknowledgement_needs_a_name(
    config_file: Write, certificate_values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(certificate_values())
    with pytest.raises(SystemExit) as caught:
        dry_run(path, "--acknowledge-alarm")
    assert caught.value.code == 2
    assert "--acknowledge-alarm" in capsys.readouterr().err
