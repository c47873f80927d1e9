from hybridserve_llm.planner.host_memory import HostNeed, host_shortfall
from hybridserve_llm.units import GIB, MIB


def need(name: str, **changes: int | None) -> HostNeed:
    values = {"replicas": 1, "ranks": 1, "weight_bytes": 4 * GIB, "kv_bytes": 2 * GIB, **changes}
    return HostNeed(name=name, **values)


# One engine of one process: 4 GiB of weights, 2 of cache, 1,000 MiB of its own.
ONE = 6 * GIB + 1000 * MIB


def test_an_engine_needs_weights_caches_and_its_own() -> None:
    assert need("a").total_bytes == ONE
    # Two ranks share the weights; each has a cache of the size given, and a process.
    assert need("a", ranks=2).total_bytes == ONE + 2 * GIB + 2 * 550 * MIB
    assert need("a", replicas=3).total_bytes == 3 * ONE
    assert need("a", weight_bytes=None).total_bytes == ONE - 4 * GIB


def test_what_fits_lacks_nothing() -> None:
    assert host_shortfall([need("a"), need("b")], 2 * ONE) is None


def test_what_does_not_fit_says_by_how_much_and_what_helps() -> None:
    found = host_shortfall([need("a", replicas=2), need("b", kv_bytes=8 * GIB)], 3 * ONE)
    assert found is not None
    assert found.missing_memory_gib == 6
    assert found.reason == (
        "the engines need 26.9 GiB of memory (a 14.0, b 13.0), this machine has 20.9: "
        "6.0 GiB too little"
    )
    # 6 GiB are 3 of each of two caches, of which there are 2, and 6 of the 8 of b; one replica of a
    # is 7.0 GiB.
    assert found.changes == (
        "lower engine.kv_cache_gib of b to 2",
        "run 1 replica of a",
        "give the machine 6 GiB more memory",
    )


def test_a_change_that_is_named_makes_it_fit() -> None:
    short = [need("a", replicas=2), need("b", kv_bytes=8 * GIB)]
    assert host_shortfall([short[0], need("b", kv_bytes=2 * GIB)], 3 * ONE) is None
    assert host_shortfall([need("a"), short[1]], 3 * ONE) is None
    assert host_shortfall(short, 3 * ONE + 6 * GIB) is None
