from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.packing import pack
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.profiles.gpu_types import gpu_type

H100 = gpu_type("H100-80GB")
H200 = gpu_type("H200")


def cluster_of(*sizes: int) -> Cluster:
    """A node of H100s for each size."""
    return Cluster(
        nodes=tuple(
            node
            for i, size in enumerate(sizes)
            for node in described_nodes(f"n{i}", H100, n_gpus=size, gpus_per_node=size)
        )
    )


def test_described_gpus_come_in_nodes_of_eight() -> None:
    nodes = described_nodes("node", H100, n_gpus=20)
    assert [(node.name, len(node.gpus)) for node in nodes] == [
        ("node-0", 8),
        ("node-1", 8),
        ("node-2", 4),
    ]


def test_whole_nodes_need_one_budget_and_odd_ones_more() -> None:
    assert cluster_of(8, 8).budget_rows() == ((H100, 1),)
    # 3 + 6 GPUs: 9 of one, 1 + 3 pairs of 2, 0 + 1 groups of 4.
    assert cluster_of(3, 6).budget_rows() == ((H100, 1), (H100, 2), (H100, 4))
    assert cluster_of(3, 6).budgets().tolist() == [9, 4, 1]


def test_parked_gpus_draw_their_bare_idle_power() -> None:
    # 75 W of an H100 (splitwise-sim) and 0.13 * 700 W of an H200.
    nodes = (*described_nodes("a", H100, n_gpus=2), *described_nodes("b", H200, n_gpus=1))
    assert Cluster(nodes=nodes).parked_w() == pytest.approx(2 * 75 + 0.13 * 700)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.data())
def test_what_keeps_the_budgets_can_be_packed(sizes: list[int], data: st.DataObject) -> None:
    cluster = cluster_of(*sizes)
    left = dict(zip(cluster.budget_rows(), cluster.budgets().tolist(), strict=True))
    wanted = []
    for size in data.draw(st.lists(st.sampled_from([1, 2, 4, 8]), max_size=20)):
        if size > max(sizes):
            continue
        takes = {row: size // row[1] for row in left if row[1] <= size}
        if all(left[row] >= n for row, n in takes.items()):
            left.update({row: left[row] - n for row, n in takes.items()})
            wanted.append((H100, size))
    groups = pack(cluster, wanted)
    taken = [gpu for group in groups for gpu in group.gpu_ids]
    assert len(taken) == len(set(taken)) == sum(size for _, size in wanted)
    assert [len(group.gpus) for group in groups] == [size for _, size in wanted]


def test_what_is_too_much_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="no node has 4 H100-80GB left"):
        pack(cluster_of(3, 3), [(H100, 4)])


def test_a_cluster_is_cut_and_grown_in_whole_nodes() -> None:
    cluster = cluster_of(8, 4)
    assert [len(node.gpus) for node in cluster.first(9).nodes] == [8, 1]
    # The last node is filled up to eight; 7 more than 4 go to a new one of 3.
    assert [len(node.gpus) for node in cluster.grown(7).nodes] == [8, 8, 3]
    ids = [gpu for node in cluster.grown(20).nodes for gpu in node.gpus]
    assert len(ids) == len(set(ids)) == 32


def test_one_more_gpu_takes_no_budget_away(planner: Callable[..., Planner]) -> None:
    for n_gpus in range(1, 20):
        cluster = planner(n_gpus).cluster
        for size in (1, 2, 4, 8):
            assert cluster.grown(1).n_groups(H100, size) >= cluster.n_groups(H100, size)
