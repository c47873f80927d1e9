"""From a replica's placement to its command line and environment: a pure function, no disk.

Every flag is one of vLLM's (0.22 to 0.33); `tests/launcher/test_argv.py` spells out whole commands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridserve_llm.config.cascade import EngineSettings, TierConfig
from hybridserve_llm.planner.plan import Placement
from launch.machine.checkpoints import is_hub_id

_ENGINE_KEEP_ALIVE_S = "60"
"""Longer than our client keeps an idle connection, so that the client is the one to close it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCommand:
    """What starts one engine; `environment` is added to the launcher's own."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def engine_command(
    tier: TierConfig,
    placement: Placement,
    *,
    socket_path: Path,
    python: str,
    gpu_numbers: Mapping[str, int],
) -> EngineCommand:
    """The vLLM server for `placement`, listening on the unix socket `socket_path`.

    `python` is the interpreter that has vLLM, `gpu_numbers` the driver's number of each GPU by its
    UUID; those of the placement must be in it. The tier's `extra_args` come last, so they win, and
    so do its environment variables. Log-probabilities stay vLLM's default, `raw_logprobs`.
    """
    return EngineCommand(
        argv=(
            # Not `vllm serve`: that program crashes in the CPU distribution 0.32.0.
            *(python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", tier.model),
            *("--served-model-name", tier.name),
            *("--uds", str(socket_path)),
            *("--tensor-parallel-size", str(placement.tensor_parallel_size)),
            *("--pipeline-parallel-size", str(placement.pipeline_parallel_size)),
            *_memory_arguments(tier.engine, placement),
            *_setting_arguments(tier.engine, placement),
            # Prompt tokens that were cached cost nothing: the books must know of them.
            "--enable-prompt-tokens-details",
            # What users write stays out of the logs, and the log stays short.
            *("--no-enable-log-requests", "--disable-uvicorn-access-log"),
            *tier.engine.extra_args,
        ),
        environment={
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": _ENGINE_KEEP_ALIVE_S,
            "DO_NOT_TRACK": "1",
            **({} if is_hub_id(tier.model) else {"HF_HUB_OFFLINE": "1"}),
            **_device_environment(tier.engine, placement, gpu_numbers),
            **tier.engine.environment,
        },
    )


def _memory_arguments(settings: EngineSettings, placement: Placement) -> tuple[str, ...]:
    share = placement.gpu_memory_share or settings.gpu_memory_utilization
    if placement.device == "cpu" or share is None:
        return ()
    return ("--gpu-memory-utilization", f"{share:g}")


def _setting_arguments(settings: EngineSettings, placement: Placement) -> tuple[str, ...]:
    arguments = ["--dtype", settings.dtype]
    if settings.max_model_len is not None:
        arguments += ["--max-model-len", str(settings.max_model_len)]
    max_num_seqs = placement.max_num_seqs or settings.max_num_seqs
    if max_num_seqs is not None:
        arguments += ["--max-num-seqs", str(max_num_seqs)]
    if settings.enforce_eager:
        arguments.append("--enforce-eager")
    if settings.reasoning_parser is not None:
        arguments += ["--reasoning-parser", settings.reasoning_parser]
    if settings.tool_call_parser is not None:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", settings.tool_call_parser]
    return tuple(arguments)


def _device_environment(
    settings: EngineSettings, placement: Placement, gpu_numbers: Mapping[str, int]
) -> dict[str, str]:
    if placement.device == "gpu":
        numbers = [gpu_numbers[uuid] for uuid in placement.gpu_uuids]
        return {
            # Not UUIDs: vLLM's older versions read whole numbers only and do not start (its issue
            # 32569). In CUDA's own order number 0 is the fastest GPU, not the driver's first.
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers)),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
    groups = placement.cpu_core_groups
    # A single rank needs no worker process of its own: without one vLLM starts in two thirds of the
    # time and holds a fifth less memory. vLLM keeps to worker processes on the CPU for the sake of
    # binding threads to cores (docs/launch.md).
    is_lone = placement.n_ranks == 1 and not groups
    one_rank = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if is_lone else {}
    # Unbound engines share the cores: a thread that waits must not keep one from another.
    sharing = {} if groups else {"OMP_WAIT_POLICY": "PASSIVE"}
    return {
        **one_rank,
        **sharing,
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        # `nobind` where no cores are given: vLLM's own choice would pin every engine of this
        # machine to the same cores. Then, and only then, OMP_NUM_THREADS is read.
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, group)) for group in groups)
        or "nobind",
        "OMP_NUM_THREADS": str(placement.cpu_threads or 1),
    }
