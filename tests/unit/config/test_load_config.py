"""Configuration files: defaults, relative paths, and one clear line for every fault."""

from pathlib import Path

import pytest

from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import ConfigError

GOOD = """
tiers:
  - {name: small, model: ./small, accept: {score_at_least: -0.5}}
  - {name: medium, model: org/medium, accept: {score_at_least: -0.4}}
  - {name: giant, model: /models/giant}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cascade.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def fault(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert [tier.name for tier in config.tiers] == ["small", "medium", "giant"]
    assert config.server.host == "127.0.0.1"
    assert config.server.served_model_name == "hybridserve"


def test_relative_models_lie_beside_the_file(tmp_path: Path) -> None:
    tiers = load_config(write(tmp_path, GOOD)).tiers
    assert tiers[0].model == str(tmp_path / "small")
    assert [tier.model for tier in tiers[1:]] == ["org/medium", "/models/giant"]


def test_unknown_key_is_named(tmp_path: Path) -> None:
    assert "unknown key 'tiers.0.treshold'" in fault(
        tmp_path, GOOD.replace("name: small,", "name: small, treshold: 1,")
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read config file .*absent\.yaml: No such file"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiers: [", "not valid YAML"),
        ("- a\n- b", "must hold a mapping"),
        ("tiers: []", "a cascade needs at least 2 tiers; 0 are given"),
        (
            "tiers: [{name: small, model: ./small}]",
            "a cascade needs at least 2 tiers; 1 is given",
        ),
        (GOOD + "cluster: {nodes: []}", "cluster.nodes needs at least 1 entry; 0 are given"),
        ("{}", "missing key 'tiers'"),
        (GOOD.replace("name: medium", "name: small"), "tier name 'small' is used twice"),
        (GOOD.replace("name: giant", "name: hybridserve"), "is also a tier's name"),
        (GOOD.replace("-0.4", "0.4"), "tiers.1.accept.score_at_least = 0.4"),
        (GOOD.replace(", accept: {score_at_least: -0.4}", ""), "tier 'medium' needs accept"),
        (GOOD.replace("/models/giant}", "/g, accept: {score_at_least: -1}}"), "is the last"),
        (GOOD + "server: {port: 99999}", "server.port = 99999"),
        (GOOD.replace("org/medium", "org/medium, endpoints: ['ftp://x']"), "must begin with http"),
    ],
)
def test_each_fault_is_one_clear_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in fault(tmp_path, text)


def test_a_bad_tier_is_not_also_counted_as_missing(tmp_path: Path) -> None:
    text = "tiers:\n  - {name: a, model: a, accept: {score_at_least: 0.5}}\n  - {name: b, model: b}"
    message = fault(tmp_path, text)
    assert "tiers.0.accept.score_at_least = 0.5: Input should be less than or equal" in message
    assert "at least" not in message
    assert ";" not in message


def test_too_few_tiers_are_reported_with_their_own_faults(tmp_path: Path) -> None:
    message = fault(tmp_path, "tiers: [{name: a, model: a, treshold: 1}]")
    assert "unknown key 'tiers.0.treshold'" in message
    assert "a cascade needs at least 2 tiers; 1 is given" in message


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        ("{score_below: -3, to: giant}", None),
        ("{score_below: -3, to: medium}", "allowed: giant"),
        ("{score_below: -3, to: nowhere}", "skips to 'nowhere'"),
        ("{score_below: -0.1, to: giant}", "is above"),
    ],
)
def test_skip_bands_go_beyond_the_next_tier(
    tmp_path: Path, skip: str, expected: str | None
) -> None:
    text = GOOD.replace("./small,", f"./small, skip: [{skip}],")
    if expected is None:
        assert load_config(write(tmp_path, text)).tiers[0].skip[0].to == "giant"
    else:
        assert expected in fault(tmp_path, text)
