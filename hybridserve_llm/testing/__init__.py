"""Provide public fakes for tests of this library and of code that builds on it.

They are never imported at run time.

* `FakeClock`: time that moves only when a test moves it.
* `FakeEngine`: an `interfaces.Engine` (and a replica) that answers from a script, waits and fails
  on demand, and keeps the requests it saw; `scripted_answer` makes its answers.
* `create_fake_vllm_app`: an ASGI app that speaks vLLM's API with a one-token-per-byte "model";
  `serving` puts it on a unix socket inside the running loop. `tests/contract` runs the same checks
  on it and on a real vLLM engine, which is why it can be trusted.
* `ScriptedNvml`: an NVML whose counter stalls, wraps, is reset or is missing, as a test wants it.
* `chat_body`, `completion_body`: the JSON bodies of vLLM's answers.
"""

from hybridserve_llm.testing.bodies import chat_body, completion_body
from hybridserve_llm.testing.fake_clock import FakeClock
from hybridserve_llm.testing.fake_engine import FakeEngine, prompt_of, scripted_answer
from hybridserve_llm.testing.fake_generation import FakeVllm
from hybridserve_llm.testing.fake_vllm import create_fake_vllm_app, serving
from hybridserve_llm.testing.scripted_nvml import ScriptedNvml

__all__ = [
    "FakeClock",
    "FakeEngine",
    "FakeVllm",
    "ScriptedNvml",
    "chat_body",
    "completion_body",
    "create_fake_vllm_app",
    "prompt_of",
    "scripted_answer",
    "serving",
]
