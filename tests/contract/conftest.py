"""Puts the one contract in `test_engine_contract.py` before the fake and before a real engine.

The real one is vLLM with a tiny checkpoint of random weights, started once per session; on a
machine without a GPU it runs on the CPU.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.testing import create_fake_vllm_app, serving

MAX_MODEL_LEN = 512
MODEL = "tiny"
START_TIMEOUT_S = 600.0  # 30 s on an idle machine, minutes on a crowded one
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The engine under contract, and the address that its metrics are read from."""

    engine: VllmHttpEngine
    address: str

    def other(self, **options: Any) -> VllmHttpEngine:
        """A client of the same server with other settings; the caller closes it."""
        return VllmHttpEngine(self.address, **{"model": MODEL, "clock": SystemClock(), **options})

    async def n_running(self) -> float:
        """`vllm:num_requests_running` of the server."""
        connector = aiohttp.UnixConnector(path=self.address.removeprefix("unix:"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://localhost/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        values = [line for line in lines if line.startswith("vllm:num_requests_running{")]
        assert values, "the server has no metric vllm:num_requests_running"
        return sum(float(line.rsplit(" ", 1)[1]) for line in values)


@pytest.fixture(params=["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def real_address(request: pytest.FixtureRequest) -> str | None:
    """The real engine's address; None where the fake stands in, and none is started."""
    return None if request.param == "fake" else request.getfixturevalue("vllm_address")


@pytest.fixture
async def subject(real_address: str | None) -> AsyncIterator[Subject]:
    async with contextlib.AsyncExitStack() as stack:
        address = real_address
        if address is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            app = create_fake_vllm_app(
                model=MODEL, max_model_len=MAX_MODEL_LEN, token_delay_s=0.002
            )
            address = await stack.enter_async_context(serving(app, Path(folder) / "s"))
        engine = VllmHttpEngine(address, model=MODEL, clock=SystemClock())
        stack.push_async_callback(engine.aclose)
        yield Subject(engine=engine, address=address)


@pytest.fixture(scope="session")
def vllm_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    _write_checkpoint(checkpoint)
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    # A unix socket's path may not be longer than about 107 bytes, and pytest's folders are long.
    with tempfile.TemporaryDirectory() as folder:
        socket_path = Path(folder) / "s"
        process = _start_vllm(checkpoint, socket_path, log)
        try:
            _wait_until_healthy(process, socket_path, log)
            yield f"unix:{socket_path}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _write_checkpoint(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from launch.demo.tokenizer import END, PAD, VOCABULARY_SIZE, build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _start_vllm(checkpoint: Path, socket_path: Path, log: Path) -> subprocess.Popen[bytes]:
    # The `vllm` console script of the CPU distribution 0.32.0 crashes, so the module is run.
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--uds", str(socket_path)),
        *("--model", str(checkpoint), "--served-model-name", MODEL),
        *("--max-model-len", str(MAX_MODEL_LEN), "--enforce-eager"),
    ]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env={**os.environ, **OFFLINE},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_healthy(process: subprocess.Popen[bytes], socket_path: Path, log: Path) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while not _is_healthy(socket_path):
        if process.poll() is not None or time.monotonic() > give_up_s:
            tail = log.read_text(errors="replace")[-4000:]
            pytest.fail(f"vLLM did not become healthy (exit status {process.poll()}):\n{tail}")
        time.sleep(0.5)


def _is_healthy(socket_path: Path) -> bool:
    """Asked without the code under test, and without a second event loop."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False
