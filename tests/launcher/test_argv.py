from pathlib import Path
from typing import Any

from hybridserve_llm.config.cascade import TierConfig
from hybridserve_llm.planner.plan import Placement
from launch.engines.argv import EngineCommand, engine_command
from launch.machine.checkpoints import is_hub_id

SOCKET = Path("/run/hs/small-0.sock")
PYTHON = "/venv/bin/python"
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",
}


def command(placement: Placement, **tier: Any) -> EngineCommand:
    settings = TierConfig.model_validate({"name": "small", "model": "org/small", **tier})
    return engine_command(
        settings, placement, socket_path=SOCKET, python=PYTHON, gpu_numbers={"GPU-a": 4, "GPU-b": 1}
    )


def test_demo_tier_on_the_cpu() -> None:
    made = command(
        Placement(name="small/0", device="cpu", cpu_threads=2),
        model="/models/small",
        engine={
            "max_model_len": 512,
            "enforce_eager": True,
            "dtype": "bfloat16",
            "max_num_seqs": 64,
            "kv_cache_gib": 3,
        },
    )
    assert made.argv == (
        "/venv/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        "/models/small",
        "--served-model-name",
        "small",
        "--uds",
        "/run/hs/small-0.sock",
        "--tensor-parallel-size",
        "1",
        "--pipeline-parallel-size",
        "1",
        "--dtype",
        "bfloat16",
        "--max-model-len",
        "512",
        "--max-num-seqs",
        "64",
        "--enforce-eager",
        "--enable-prompt-tokens-details",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    )
    assert made.environment == {
        **QUIET,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "3",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def test_tensor_parallel_on_the_cpu_binds_ranks_to_their_cores() -> None:
    made = command(
        Placement(
            name="small/0",
            device="cpu",
            tensor_parallel_size=2,
            cpu_threads=2,
            cpu_core_groups=((0, 1), (2, 3)),
        )
    )
    assert made.argv[9:13] == ("--tensor-parallel-size", "2", "--pipeline-parallel-size", "1")
    assert made.environment == {
        **QUIET,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0,1|2,3",
        "OMP_NUM_THREADS": "2",
    }


def test_gpus_of_its_own_leave_memory_to_vllm() -> None:
    made = command(
        Placement(
            name="small/0", device="gpu", tensor_parallel_size=2, gpu_uuids=("GPU-a", "GPU-b")
        )
    )
    assert made.argv == (
        "/venv/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        "org/small",
        "--served-model-name",
        "small",
        "--uds",
        "/run/hs/small-0.sock",
        "--tensor-parallel-size",
        "2",
        "--pipeline-parallel-size",
        "1",
        "--dtype",
        "auto",
        "--enable-prompt-tokens-details",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    )
    # The driver's numbers in the placement's order.
    assert made.environment == {
        **QUIET,
        "CUDA_VISIBLE_DEVICES": "4,1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_shared_gpu_takes_the_plans_share_and_an_unshared_one_the_tiers() -> None:
    shared = Placement(name="small/0", device="gpu", gpu_uuids=("GPU-a",), gpu_memory_share=0.45)
    alone = Placement(name="small/0", device="gpu", gpu_uuids=("GPU-a",))
    settings = {"gpu_memory_utilization": 0.7}
    assert command(shared, engine=settings).argv[13:15] == ("--gpu-memory-utilization", "0.45")
    assert command(alone, engine=settings).argv[13:15] == ("--gpu-memory-utilization", "0.7")


def test_batch_of_the_plan_wins_over_the_tiers() -> None:
    planned = Placement(name="small/0", device="gpu", gpu_uuids=("GPU-a",), max_num_seqs=32)
    argv = command(planned, engine={"max_num_seqs": 64}).argv
    assert argv[argv.index("--max-num-seqs") + 1] == "32"
    assert argv.count("--max-num-seqs") == 1


def test_parsers_extra_arguments_and_environment_come_last() -> None:
    made = command(
        Placement(name="small/0", device="cpu", cpu_threads=1),
        engine={
            "reasoning_parser": "deepseek_r1",
            "tool_call_parser": "hermes",
            "extra_args": ["--enable-log-requests", "--seed", "3"],
            "environment": {"OMP_NUM_THREADS": "7", "MINE": "x"},
        },
    )
    assert made.argv[15:] == (
        "--reasoning-parser",
        "deepseek_r1",
        "--enable-auto-tool-choice",
        "--tool-call-parser",
        "hermes",
        "--enable-prompt-tokens-details",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
        "--enable-log-requests",
        "--seed",
        "3",
    )
    assert made.environment["OMP_NUM_THREADS"] == "7"
    assert made.environment["MINE"] == "x"


def test_hub_ids_are_told_from_paths() -> None:
    assert is_hub_id("Qwen/Qwen3-0.6B")
    assert is_hub_id("gpt2")
    for path in ("/models/a", "./a/b", "../a", "~/a", "a/b/c", "a/"):
        assert not is_hub_id(path), path
