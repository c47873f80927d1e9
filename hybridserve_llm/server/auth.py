"""Read the API keys once at the start, and compare them in constant time."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from hybridserve_llm.config.cascade import ServerConfig
from hybridserve_llm.errors import AuthenticationFailed, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeys:
    """Hold the accepted keys; without any key everybody is let in."""

    keys: tuple[bytes, ...] = ()

    def check(self, authorization: str | None) -> None:
        """Let a request with `Authorization: Bearer KEY` pass.

        Every key is compared, also after a match, so that the time taken gives nothing away.

        Raises:
            AuthenticationFailed: Keys are set and the header holds none of them.
        """
        if not self.keys:
            return
        scheme, _, given = (authorization or "").partition(" ")
        matches = [hmac.compare_digest(key, given.strip().encode()) for key in self.keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise AuthenticationFailed("missing or wrong API key; send Authorization: Bearer KEY")


def load_api_keys(config: ServerConfig, environment: Mapping[str, str]) -> ApiKeys:
    """Return the keys from `api_keys_file` and from the environment variable `api_keys_env`.

    Raises:
        ConfigError: The file cannot be read, the variable is not set, or neither holds a key.
    """
    found: list[str] = []
    if config.api_keys_file is not None:
        try:
            found += config.api_keys_file.read_text(encoding="utf-8").split()
        except OSError as exc:
            raise ConfigError(
                f"cannot read server.api_keys_file {config.api_keys_file}: {exc.strerror}"
            ) from exc
    if config.api_keys_env is not None:
        value = environment.get(config.api_keys_env)
        if value is None:
            raise ConfigError(f"server.api_keys_env names {config.api_keys_env}, which is not set")
        found += [key.strip() for key in value.split(",") if key.strip()]
    wants_keys = config.api_keys_file is not None or config.api_keys_env is not None
    if wants_keys and not found:
        raise ConfigError("API keys are required but none is given; the server would let nobody in")
    return ApiKeys(keys=tuple(key.encode() for key in found))
