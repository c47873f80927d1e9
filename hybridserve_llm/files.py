"""Read whole files that a person named, with one wording for the errors."""

from pathlib import Path

from hybridserve_llm.errors import ConfigError


def read_bytes(path: Path, *, name: str | None = None) -> bytes:
    """Return the bytes of the file `path`.

    Args:
        path: The file.
        name: Words for the file in the error message; by default its path.

    Raises:
        ConfigError: The file cannot be read; the message is "cannot read NAME: REASON".
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {name or path}: {exc.strerror or exc}") from exc


def read_text(path: Path, *, name: str | None = None) -> str:
    """Return the text of the UTF-8 file `path`, with its line ends made newlines.

    Args:
        path: The file.
        name: Words for the file in the error message; by default its path.

    Raises:
        ConfigError: As in `read_bytes`, or the file is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot read {name or path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"cannot read {name or path}: not UTF-8 text") from exc
