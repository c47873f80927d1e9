"""API keys: where they come from, and who is let in."""

from pathlib import Path

import pytest

from hybridserve_llm.config.cascade import ServerConfig
from hybridserve_llm.errors import AuthenticationFailed, ConfigError
from hybridserve_llm.server.auth import ApiKeys, load_api_keys


def test_without_keys_everybody_is_let_in() -> None:
    ApiKeys().check(None)


@pytest.mark.parametrize("header", ["Bearer two", "bearer two", "Bearer one"])
def test_any_of_the_keys_is_let_in(header: str) -> None:
    ApiKeys(keys=(b"one", b"two")).check(header)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer three", "Basic one", "one"])
def test_anything_else_is_refused(header: str | None) -> None:
    with pytest.raises(AuthenticationFailed, match="API key"):
        ApiKeys(keys=(b"one", b"two")).check(header)


def test_keys_come_from_file_and_environment(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys"
    keys_file.write_text("one\n\ntwo\n")
    config = ServerConfig(api_keys_file=keys_file, api_keys_env="HS_KEYS")
    assert load_api_keys(config, {"HS_KEYS": "three, four"}).keys == (
        b"one",
        b"two",
        b"three",
        b"four",
    )


@pytest.mark.parametrize(
    ("config", "environment", "expected"),
    [
        (ServerConfig(api_keys_env="HS_KEYS"), {}, "HS_KEYS, which is not set"),
        (ServerConfig(api_keys_env="HS_KEYS"), {"HS_KEYS": " , "}, "none is given"),
        (ServerConfig(api_keys_file=Path("/absent/keys")), {}, "cannot read"),
    ],
)
def test_keys_that_are_named_and_missing_stop_the_start(
    config: ServerConfig, environment: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_api_keys(config, environment)
