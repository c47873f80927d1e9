import pytest

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.load.engine_counters import counters_of

METRICS = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a b"} 640.0
vllm:prompt_tokens_total{engine="1",model_name="a b"} 60.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1e+03
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="m"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.5
vllm:inter_token_latency_seconds_count{engine="0",model_name="m"} 990.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="m"} 4.95
python_info 1.0
"""


def test_counters_are_added_up_over_labels() -> None:
    counters = counters_of(METRICS)
    assert counters.prompt_tokens == 700.0
    assert counters.output_tokens == 1000.0
    assert counters.preemptions == 2.0


def test_means_are_those_of_the_stretch_between_two_readings() -> None:
    later = METRICS.replace('count{engine="0",model_name="m"} 10.0', "count{} 14.0").replace(
        'sum{engine="0",model_name="m"} 0.5', "sum{} 0.7"
    )
    counted = counters_of(later).since(counters_of(METRICS))
    # 4 first tokens more, 0.2 s more: 50 ms each. No interval more: no mean of them.
    assert counted.ttft_s == pytest.approx(0.05)
    assert counted.itl_s is None
    assert counted.output_tokens == 0.0


def test_the_name_of_older_versions_is_read() -> None:
    old = METRICS.replace("inter_token_latency", "time_per_output_token")
    # 4.95 s / 990
    assert counters_of(old).itl_s == pytest.approx(0.005)


def test_an_engine_without_the_counters_cannot_be_measured() -> None:
    with pytest.raises(CannotBeDone, match="has no vllm:prompt_tokens_total: it cannot be"):
        counters_of("python_info 1.0\n")
