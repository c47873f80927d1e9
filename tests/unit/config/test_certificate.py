"""Certificate files: what is read back, and one clear line for every fault."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.config.certificate import Certificate, load_certificate
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import ConfigError

Values = Callable[..., dict[str, Any]]


def write(folder: Path, text: str) -> Path:
    path = folder / "certificate.json"
    path.write_text(text, encoding="utf-8")
    return path


def fault(path: Path) -> str:
    """The message of the error that reading `path` raises: one line that names the file."""
    with pytest.raises(ConfigError) as caught:
        load_certificate(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_certificate_without_an_estimand_is_about_single_questions(
    certificate_values: Values,
) -> None:
    values = certificate_values()
    del values["estimand"]
    assert Certificate.model_validate(values).estimand == "question"


def test_a_certificate_reads_back_as_it_was_written(
    certificate_values: Values, policy_values: Values, tmp_path: Path
) -> None:
    values = certificate_values(
        strict_policy=policy_values(0.05, acceptance=0.3),
        fingerprint={"hash": "sha256:f", "parts": {"scorer": "s", "tiers": {"small": None}}},
        gate={"intercept": 0.5, "features": ["log_turns"], "slopes": [0.25], "means": [1e-9]},
    )
    certificate = Certificate.model_validate(values)
    assert load_certificate(write(tmp_path, certificate.to_json())) == certificate
    assert json.loads(certificate.to_json()) == {**values, "demands": [[]]}
    # Keys stay in order, so that two certificates can be compared line by line.
    assert list(json.loads(certificate.to_json())) == list(
        Certificate.model_json_schema(by_alias=True)["properties"]
    )


def test_numbers_survive_to_the_last_bit(certificate_values: Values, tmp_path: Path) -> None:
    values = certificate_values(epsilon=0.1 + 0.2 - 0.28)
    certificate = load_certificate(write(tmp_path, Certificate.model_validate(values).to_json()))
    assert certificate.epsilon == 0.1 + 0.2 - 0.28


def test_what_follows_from_a_certificate(certificate_values: Values) -> None:
    certificate = Certificate.model_validate(certificate_values())
    assert certificate.cost_ratio == 2.5  # 10 / 4
    assert certificate.dropped == ()
    names = ["small", "medium", "giant"]
    cost = {"source": "s", "tiers": dict.fromkeys(names, 1.0), "cascade": 1.0, "last": 1.0}
    without_medium = certificate_values(tiers=names, cost=cost)
    assert Certificate.model_validate(without_medium).dropped == ("medium",)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.json"
    assert fault(path) == f"cannot read certificate {path}: No such file or directory"


@pytest.mark.parametrize(
    "text", ["", "not JSON", '{"schema": NaN}', '{"epsilon": 1e999}', "\ud83d"]
)
def test_what_is_not_json_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    assert f"certificate {path} is not JSON: " in fault(path)


def changed(values: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of `values` with another value at a place such as `policy.rules.0.asked`."""
    whole = copy.deepcopy(values)
    *way, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    inner: Any = whole
    for part in way:
        inner = inner[part]
    inner[last] = value
    return whole


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("surprise", 1, "surprise: Extra inputs are not permitted"),
        ("policy.surprise", 1, "policy.surprise: Extra inputs are not permitted"),
        ("schema", "hybridserve-certificate/9", "schema: Input should be 'hybridserve-certifi"),
        ("created", 5, "created: Input should be a valid string"),
        ("epsilon", 1.5, "epsilon: Input should be less than or equal to 1"),
        ("delta", None, "delta: Input should be a valid number"),
        ("preset", "fast", "preset: Input should be 'accuracy' or 'energy'"),
        ("endpoints", [], "endpoints: Tuple should have at least 1 item"),
        ("endpoints", ["/v1/embeddings"], "endpoints.0: Input should be '/v1/chat/completions'"),
        ("tiers", ["small"], "tiers: Tuple should have at least 2 items"),
        ("chain", ["giant", "small"], "tiers giant, small are not in order, each once"),
        ("chain", ["small", "small", "giant"], "tiers small, small, giant are not in order"),
        ("chain", ["small"], "the chain must end in the last tier, 'giant'"),
        ("chain", ["tiny", "giant"], "tier 'tiny' is not among tiers small, giant"),
        ("models.0.asked", ["huge"], "tier 'huge' is not among tiers small, giant"),
        ("models.0.asked", [], "models.0.asked: Tuple should have at least 1 item"),
        ("models.0.wrong.means", [], "features, slopes and means must be of one length"),
        ("models.0.wrong.slopes", [1.0, 2.0], "features, slopes and means must be of one length"),
        ("policy.rules.0.asked", ["giant", "small"], "giant, small are not in order"),
        ("policy.rules.0.else_ask", [], "else_ask: Tuple should have at least 1 item"),
        ("policy.rules.0.else_ask.0.tier", "tiny", "tier 'tiny' is not among tiers"),
        ("policy.rules.0.else_ask.0.tier", "small", "tiers small, small are not in order"),
        ("policy.p_value", 1.1, "policy.p_value: Input should be less than or equal to 1"),
        ("policy.acceptance", {"small": -0.1}, "acceptance.small: Input should be greater than"),
        ("policy", None, "certified must be true with a policy, and false without one"),
        ("certified", False, "certified must be true with a policy, and false without one"),
        ("cost.last", 0, "cost.last: Input should be greater than 0"),
        ("cost.tiers", {"giant": 1.0}, "cost.tiers must name the tiers small, giant"),
    ],
)
def test_each_fault_is_one_clear_line(
    certificate_values: Values, tmp_path: Path, place: str, value: Any, expected: str
) -> None:
    text = json.dumps(changed(certificate_values(), place, value))
    assert expected in fault(write(tmp_path, text))


@pytest.mark.parametrize("text", ["[]", "5", "null", '"certificate"'])
def test_json_that_is_no_object_is_told(tmp_path: Path, text: str) -> None:
    assert "certificate" in fault(write(tmp_path, text))


def test_every_key_but_the_estimand_is_needed_and_the_first_that_is_missing_named(
    certificate_values: Values, tmp_path: Path
) -> None:
    for key in certificate_values().keys() - {"estimand"}:  # younger than the schema
        values = certificate_values()
        del values[key]
        assert f"{key}: Field required" in fault(write(tmp_path, json.dumps(values)))


SMALL = {"name": "small", "model": "./small"}
GIANT = {"name": "giant", "model": "org/giant"}
ACCEPT = {"accept": {"score_at_least": -0.5}}


def config_file(folder: Path, small: dict[str, Any], **more: Any) -> Path:
    path = folder / "cascade.yaml"
    path.write_text(yaml.safe_dump({"tiers": [{**SMALL, **small}, GIANT], **more}))
    return path


def test_a_certificate_is_beside_the_configuration(tmp_path: Path) -> None:
    relative = load_config(config_file(tmp_path, {}, certificate="./made/certificate.json"))
    assert relative.certificate is not None
    assert relative.certificate.file == tmp_path / "made/certificate.json"
    absolute = load_config(config_file(tmp_path, {}, certificate="/made/certificate.json"))
    assert absolute.certificate is not None
    assert absolute.certificate.file == Path("/made/certificate.json")
    assert load_config(config_file(tmp_path, ACCEPT)).certificate is None


def test_a_certificate_may_be_a_section_of_its_own(tmp_path: Path) -> None:
    section = {"file": "made/certificate.json", "uncovered": "last"}
    named = load_config(config_file(tmp_path, {}, certificate=section)).certificate
    assert named is not None
    assert (named.file, named.uncovered) == (tmp_path / "made/certificate.json", "last")
    with pytest.raises(ConfigError, match=r"certificate\.uncovered = 'first'"):
        load_config(config_file(tmp_path, {}, certificate={**section, "uncovered": "first"}))


def test_thresholds_are_needed_without_a_certificate_and_not_with_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tier 'small' needs accept, e\.g\. accept: "):
        load_config(config_file(tmp_path, {}))
    with_one = load_config(config_file(tmp_path, {}, certificate="c.json"))
    assert with_one.tiers[0].accept is None
    with_both = load_config(config_file(tmp_path, ACCEPT, certificate="c.json"))
    assert with_both.tiers[0].accept is not None


def test_a_skip_band_needs_a_threshold_even_with_a_certificate(tmp_path: Path) -> None:
    skip = {"skip": [{"score_below": -3, "to": "giant"}]}
    with pytest.raises(ConfigError, match="tier 'small' needs accept"):
        load_config(config_file(tmp_path, skip, certificate="c.json"))


def test_the_watch_is_set_in_the_configuration(tmp_path: Path) -> None:
    settings = {"shadow_share": 1, "delta": 0.01, "state_file": "state/watch.json"}
    watch = load_config(config_file(tmp_path, ACCEPT, watch=settings)).watch
    assert (watch.shadow_share, watch.delta, watch.seed) == (1.0, 0.01, 0)
    assert watch.state_file == tmp_path / "state/watch.json"
    defaults = load_config(config_file(tmp_path, ACCEPT)).watch
    assert (defaults.shadow_share, defaults.delta, defaults.state_file) == (0.02, 0.0005, None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"share": 1}, "unknown key 'watch.share'"),
        ({"shadow_share": 0}, "watch.shadow_share = 0: "),
        ({"shadow_share": 1.5}, "watch.shadow_share = 1.5: "),
        ({"delta": 1}, "watch.delta = 1: "),
        ({"warning_e_value": 1}, "watch.warning_e_value = 1: "),
        ({"shadow_queue": 0}, "watch.shadow_queue = 0: "),
    ],
)
def test_a_setting_of_the_watch_that_is_not_allowed_is_named(
    tmp_path: Path, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(tmp_path, ACCEPT, watch=settings))
    assert expected in str(caught.value)
