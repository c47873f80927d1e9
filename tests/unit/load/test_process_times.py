import os

import pytest

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.load.process_times import cpu_time_of_children, cpu_time_of_tree


def test_this_process_is_in_its_own_tree_and_not_among_its_children() -> None:
    sum(range(10_000_000))  # so that it has used some time
    children, tree = cpu_time_of_children(), cpu_time_of_tree(os.getpid())
    assert tree.engine_s >= children.engine_s + 0.01
    assert children.others_s is not None
    assert children.others_s > 0


def test_a_process_that_does_not_exist() -> None:
    with pytest.raises(CannotBeDone, match="there is no process 999999999: --pid names"):
        cpu_time_of_tree(999_999_999)
