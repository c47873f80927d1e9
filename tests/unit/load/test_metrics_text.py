import pytest

from hybridserve_llm.load.metrics_text import Samples

TEXT = """\
# TYPE joules_total counter
joules_total{tier="small",booking="user"} 3.0
joules_total{tier="small",booking="idle"} 0.5
joules_total{tier="giant",booking="user"} 10
up 1
"""


def test_samples_are_added_up_over_the_labels_that_are_not_asked_for() -> None:
    samples = Samples.of(TEXT)
    assert samples.total("joules_total") == 13.5
    assert samples.total("joules_total", tier="small") == 3.5
    assert samples.total("joules_total", tier="small", booking="idle") == 0.5
    assert samples.total("up") == 1.0


def test_an_absent_metric_is_none_and_not_0() -> None:
    samples = Samples.of(TEXT)
    assert samples.total("watts") is None
    assert samples.total("joules_total", tier="medium") is None
    assert samples.values_of("watts", "tier") == set()


def test_values_of_a_label_are_found() -> None:
    samples = Samples.of(TEXT)
    assert samples.values_of("joules_total", "booking", tier="small") == {"user", "idle"}
    assert samples.values_of("joules_total", "booking", tier="giant") == {"user"}


def test_other_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        Samples.of("up one\n")
