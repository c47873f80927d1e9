"""Whole files, and the errors of those that cannot be read."""

from pathlib import Path

import pytest

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.files import read_bytes, read_text


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("é\r\n".encode())
    assert read_bytes(path) == b"\xc3\xa9\r\n"
    assert read_text(path) == "é\n"


def test_an_error_names_the_file_and_the_reason(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for read in (read_bytes, read_text):
        with pytest.raises(ConfigError) as caught:
            read(absent)
        assert str(caught.value) == f"cannot read {absent}: No such file or directory"
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, name=f"profile {tmp_path}")
        assert str(caught.value) == f"cannot read profile {tmp_path}: Is a directory"


def test_text_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "latin"
    path.write_bytes(b"\xe9")
    with pytest.raises(ConfigError) as caught:
        read_text(path)
    assert str(caught.value) == f"cannot read {path}: not UTF-8 text"
