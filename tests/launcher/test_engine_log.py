from pathlib import Path

import pytest

from launch.engines.engine_log import keep_old_log, log_tail, start_stage, telling_line

CHILD_FAILED = """\
(EngineCore pid=7) ERROR 11-23 20:35:09 [core.py:1200] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-23 20:35:09 [core.py:1200]   File "core.py", line 3, in main
(EngineCore pid=7) ERROR 11-23 20:35:09 [core.py:1200] ValueError: No room for the KV cache
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "entry.py", line 3, in main
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed: {}
"""
VALIDATION = """\
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len 9000 is greater than 512 [type=value_error, input_value=…]
    For further information visit https://errors.pydantic.dev/2/v/value_error
"""
NO_KERNELS = """\
WARNING 11-24 11:35:09 [cpu.py:645] Failed to import from vllm._C: ImportError('libnuma.so.1: \
cannot open shared object file: No such file or directory')
(EngineCore pid=7) AttributeError: '_OpNamespace' '_C' object has no attribute 'init_cpu_memory'
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            NO_KERNELS,
            "ImportError: libnuma.so.1: cannot open shared object file: No such file or directory",
        ),
        (
            NO_KERNELS + "ValueError: No room for the KV cache",
            "ValueError: No room for the KV cache",
        ),
        ("", None),
        ("Segmentation fault\n\n", "Segmentation fault"),
        ("Traceback:\n  File x\nOSError: [Errno 28] Full\nleaked 3", "OSError: [Errno 28] Full"),
        (f"KeyError: {'x' * 300}", f"KeyError: {'x' * 290}…"),
        (CHILD_FAILED, "ValueError: No room for the KV cache"),
        (
            VALIDATION,
            "max_model_len 9000 is greater than 512",
        ),
        (
            "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --frob\n",
            "api_server.py: error: unrecognized arguments: --frob",
        ),
        (
            "/bin/python: Error while finding module specification for 'vllm.x' "
            "(ModuleNotFoundError: No module named 'vllm')",
            "/bin/python: Error while finding module specification for 'vllm.x' "
            "(ModuleNotFoundError: No module named 'vllm')",
        ),
    ],
)
def test_telling_line_says_why(log: str, line: str | None) -> None:
    assert telling_line(log) == line


def test_stage_is_the_furthest_that_the_log_shows() -> None:
    assert start_stage("") == "loading vLLM"
    log = "INFO non-default args: {}\nINFO Starting to load model /x...\n"
    assert start_stage(log) == "loading weights"


def test_log_tail_reads_the_end_and_a_missing_log_is_empty(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == ""
    log.write_bytes(b"x" * 100_000 + b"\xffend")
    assert len(log_tail(log)) == 65536
    assert log_tail(log).endswith("\N{REPLACEMENT CHARACTER}end")


def test_five_old_logs_are_kept_the_newest_first(tmp_path: Path) -> None:
    log = tmp_path / "small-0.log"
    keep_old_log(log)  # none yet
    for life in range(1, 8):
        log.write_text(f"life {life}")
        keep_old_log(log)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {f"small-0.log.{i}": f"life {8 - i}" for i in range(1, 6)}
