"""`hs-eval collect --dataset`: rows of a Hugging Face dataset in a folder; no hub is reached."""

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.cli import main
from eval.questions.hub_datasets import DatasetName, dataset_lines
from hybridserve_llm.errors import CannotBeDone, ConfigError

ROWS = [{"question": f"{word} and two?", "answer": "#### 4"} for word in ("Two", "2")]


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a test looked up a host")


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, offline, with a cache of its own and without progress bars."""
    package = pytest.importorskip("datasets")
    hub = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(package.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    package.disable_progress_bars()
    yield package
    package.enable_progress_bars()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of data files: one of JSON lines for each of two splits."""
    folder = tmp_path / "files"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def test_a_folder_of_data_files(datasets: Any, files: Path) -> None:
    lines = dataset_lines(DatasetName(path=str(files), split="test")).splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert len(dataset_lines(DatasetName(path=str(files), split="test[:1]")).splitlines()) == 1


def test_a_saved_dataset_gives_the_same_bytes(datasets: Any, files: Path, tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    by_split = {"train": datasets.Dataset.from_list(ROWS[:1]), "test": one_column(datasets)}
    datasets.DatasetDict(by_split).save_to_disk(tmp_path / "two")
    loaded = dataset_lines(DatasetName(path=str(files), split="test"))
    assert dataset_lines(DatasetName(path=str(tmp_path / "one"))) == loaded
    assert dataset_lines(DatasetName(path=str(tmp_path / "two"), split="test")) == b'{"id":"a"}\n'


def one_column(datasets: Any) -> Any:
    """A row whose second column is null, which is to be absent."""
    return datasets.Dataset.from_list([{"id": "a", "group": None}])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "has the splits train, test; name one: --split"),
        ({"split": "dev"}, 'Unknown split "dev"'),
        ({"subset": "main", "split": "test"}, "BuilderConfig 'main' not found"),
        ({"path": "/none/there"}, "dataset /none/there: "),
    ],
)
def test_what_is_not_there_is_named(
    datasets: Any, files: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        dataset_lines(DatasetName(**{"path": str(files)} | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subset": "main"}, "neither subsets nor revisions"),
        ({"revision": "v1"}, "neither subsets nor revisions"),
        ({"split": "dev"}, "no such split; there: train, test"),
    ],
)
def test_a_saved_dataset_has_splits_and_no_more(
    datasets: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    one = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match=words):
        dataset_lines(DatasetName(path=str(tmp_path / "saved"), **changes))


def test_a_hub_that_cannot_be_reached_is_another_kind_of_error(datasets: Any) -> None:
    with pytest.raises(CannotBeDone, match=r"dataset org/none, main, test: .*the Hub"):
        dataset_lines(DatasetName(path="org/none", subset="main", split="test"))


def test_rows_that_are_no_json_are_named(datasets: Any, tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"prompt": b"\xff"}]).save_to_disk(tmp_path / "bytes")
    with pytest.raises(ConfigError, match=r"row 1 cannot be written as JSON: .*bytes"):
        dataset_lines(DatasetName(path=str(tmp_path / "bytes")))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r"pip install 'hybridserve-llm\[datasets\]'"):
        dataset_lines(DatasetName(path="openai/gsm8k"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of a file and --dataset is needed, and not both"),
        (["rows.jsonl", "--dataset", "openai/gsm8k"], "and not both"),
        (["rows.jsonl", "--split", "test"], "go with --dataset, not with a file"),
    ],
)
def test_a_file_or_a_dataset(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--base-url", "http://127.0.0.1:1/v1", "--attempts", "none.jsonl"]
    assert main(["collect", *arguments, *asked]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_dataset_is_collected_and_gone_on_with(cascade: Any, files: Path, tmp_path: Path) -> None:
    """In a process of its own, as a user runs it: `datasets` reads its environment once."""
    pytest.importorskip("datasets")
    cascade.answer = lambda tier, prompt: "4" if tier == "big" else "5"
    command = [sys.executable, "-m", "eval.cli", "collect", "--dataset", str(files)]
    command += ["--split", "test", "--format", "gsm8k", "--base-url", cascade.base_url]
    command += ["--attempts", str(tmp_path / "attempts.jsonl"), "--json"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, env=environment, check=True)
        small, big = json.loads(done.stdout)["tiers"]
        assert (small["accuracy"], big["accuracy"], big["n_answered"]) == (0, 1, 2)
    assert len(cascade.bodies) == 4
