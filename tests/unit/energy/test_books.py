"""Who is charged: requests, shadows, idle; nothing is lost, nothing is invented."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.energy.attribution import Booking, Stint, TokenWeights
from hybridserve_llm.energy.books import EnergyBooks
from hybridserve_llm.energy.joules import unknown
from hybridserve_llm.energy.meters import AbsentMeter, ModelMeter
from hybridserve_llm.energy.site import OTHERS, ActivityShares, Site, SiteSettings
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import Activity, Flag, Joules, SettledEnergy, Source

TIERS = {"small/0": "small", "small/1": "small", "large/0": "large"}


@dataclass
class Meter:
    """A constant power with gaps in which nothing is known; keeps the sum of all it told."""

    power_w: float = 100.0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    told_j: list[float] = field(default_factory=list)
    lag_s: float = 0.0
    known_until_s: float = math.inf

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        if any(start_s < end and begin < end_s for begin, end in self.gaps):
            return unknown("GPU is lost")
        self.told_j.append(self.power_w * (end_s - start_s))
        return Joules(energy_j=self.told_j[-1], source=Source.NVML_ENERGY, edge_j=1.0)


def begun(
    books: EnergyBooks,
    clock: FakeClock,
    request_id: str,
    replica: str,
    booking: Booking = Booking.USER,
) -> Stint:
    """A stint that begins now, and that the books were told of."""
    stint = Stint(
        request_id=request_id,
        tier=TIERS[replica],
        replica=replica,
        booking=booking,
        start_s=clock.monotonic_s(),
    )
    books.begin(stint)
    return stint


class Bench:
    """Books over one site, on a clock that starts at 1000 s."""

    def __init__(
        self,
        *meters: Meter | AbsentMeter | ModelMeter,
        replicas: Mapping[str, str] = TIERS,
        activity: ActivityShares | None = None,
        is_activity_late: bool = False,
        **options: float,
    ) -> None:
        self.clock = FakeClock()
        self.settled: list[SettledEnergy] = []
        sites = [
            Site(
                SiteSettings(
                    component=name,
                    replicas=replicas,
                    activity=activity,
                    is_activity_late=is_activity_late,
                    weights={},
                ),
                meter,
                start_s=1000,
            )
            for name, meter in zip(("gpu", "cpu"), meters, strict=False)
        ]
        self.books = EnergyBooks(sites, clock=self.clock, on_settled=self.settled.append, **options)

    def begin(
        self, request_id: str, replica: str = "small/0", booking: Booking = Booking.USER
    ) -> Stint:
        return begun(self.books, self.clock, request_id, replica, booking)

    def end(self, stint: Stint, *tokens: int) -> None:
        stint.prompt_tokens, stint.output_tokens = tokens or (None, None)
        stint.end_s = self.clock.monotonic_s()
        if stint.booking is Booking.SHADOW:
            self.books.request_finished(stint.request_id, stint.tier)

    def booked(self, booking: Booking, tier: str | None = "small", component: str = "gpu") -> float:
        return math.fsum(
            joules
            for key, joules in self.books.totals.joules.items()
            if (key.booking, key.tier, key.component) == (booking, tier, component)
        )

    def all_booked(self) -> float:
        return math.fsum(self.books.totals.joules.values())


ALONE = {"small/0": "small"}


def test_a_short_request_in_an_idle_second_pays_for_its_own_time() -> None:
    bench = Bench(Meter(), replicas=ALONE)
    bench.clock.advance(0.4)
    stint = bench.begin("r")
    bench.clock.advance(0.05)
    bench.end(stint, 10, 5)
    bench.books.request_finished("r", "small")
    bench.clock.advance(0.55)
    bench.books.settle()
    (settled,) = bench.settled
    assert settled.active_j == pytest.approx(5)  # 50 ms of 100 W
    assert bench.booked(Booking.IDLE) == pytest.approx(95)
    assert (settled.source, settled.reason, settled.flags) == ("nvml_energy", None, ())
    assert settled.edge_j == pytest.approx(1)
    # All of the tier's 100 J so far carried by its only request.
    assert settled.loaded_j == pytest.approx(100)


def test_an_escalated_request_pays_for_every_tier() -> None:
    small, large = Meter(power_w=50), Meter(power_w=400)
    clock, settled = FakeClock(), list[SettledEnergy]()
    sites = [
        Site(SiteSettings(component="gpu", replicas={name: tier}, weights={}), meter, start_s=1000)
        for name, tier, meter in (("small/0", "small", small), ("large/0", "large", large))
    ]
    books = EnergyBooks(sites, clock=clock, on_settled=settled.append)
    for tier, seconds in (("small", 1), ("large", 2)):
        stint = begun(books, clock, "r", f"{tier}/0")
        clock.advance(seconds)
        stint.prompt_tokens, stint.output_tokens, stint.end_s = 9, 1, clock.monotonic_s()
    books.request_finished("r", "large")
    books.settle()
    (one,) = settled
    assert one.tiers == {"small": pytest.approx(50), "large": pytest.approx(800)}
    assert one.active_j == pytest.approx(850)
    # small was idle for 2 s (100 J) beside 50 J of work, large for 1 s (400 J) beside 800 J.
    assert one.loaded_j == pytest.approx(50 * 3 + 800 * 1.5)


def test_shadow_and_calibration_traffic_is_not_booked_to_users() -> None:
    bench = Bench(Meter(), replicas=ALONE)
    kinds = {"u": Booking.USER, "s": Booking.SHADOW, "c": Booking.CALIBRATION}
    for request_id, kind in kinds.items():
        stint = bench.begin(request_id, booking=kind)
        bench.clock.advance(1)
        bench.end(stint, 1, 1)
        if request_id != "s":  # a shadow never passes the router
            bench.books.request_finished(request_id, "small")
    bench.books.settle()
    assert {one.request_id: one.booking for one in bench.settled} == {
        "u": "user",
        "s": "shadow",
        "c": "calibration",
    }
    for booking in (Booking.USER, Booking.SHADOW, Booking.CALIBRATION):
        assert bench.booked(booking) == pytest.approx(100)


def test_a_cancelled_request_pays_an_estimated_share() -> None:
    bench = Bench(Meter(), replicas=ALONE)
    kept, cancelled = bench.begin("kept"), bench.begin("cancelled")
    bench.clock.advance(1)
    bench.end(cancelled)
    bench.end(kept, 5, 5)
    bench.books.request_finished("cancelled", None)
    bench.books.request_finished("kept", "small")
    bench.books.settle()
    by_id = {one.request_id: one for one in bench.settled}
    assert by_id["cancelled"].active_j == pytest.approx(50)
    assert by_id["cancelled"].flags == (Flag.ESTIMATED.value,)
    assert by_id["kept"].flags == ()


def test_a_retry_on_another_replica_is_charged_to_the_same_request() -> None:
    bench = Bench(Meter(), replicas={"small/0": "small", "small/1": "small"})
    first = bench.begin("r", "small/0")
    bench.clock.advance(1)
    bench.end(first)
    second = bench.begin("r", "small/1")
    bench.clock.advance(1)
    bench.end(second, 3, 3)
    bench.books.request_finished("r", "small")
    bench.books.settle()
    (one,) = bench.settled
    assert one.active_j == pytest.approx(200)  # one replica busy at a time: it has the shared GPU
    assert Flag.ALLOCATED.value in one.flags


def test_a_shared_gpu_is_split_by_measured_activity_with_the_rest_for_others() -> None:
    bench = Bench(
        Meter(),
        replicas={"small/0": "small", "large/0": "large"},
        activity=lambda _a, _b: {"small/0": 3.0, "large/0": 1.0, OTHERS: 1.0},
    )
    stint = bench.begin("r", "small/0")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.books.settle()
    assert bench.settled[0].active_j == pytest.approx(60)
    assert bench.settled[0].flags == ()
    assert bench.booked(Booking.IDLE, "large") == pytest.approx(20)
    assert bench.booked(Booking.OTHERS, None) == pytest.approx(20)


def test_late_activity_is_theirs_who_work_in_the_window() -> None:
    """One request at 100 W: 0.3 s on small, then 0.7 s on large; the driver tells once a second."""
    bench = Bench(
        Meter(),
        replicas={"small/0": "small", "large/0": "large"},
        activity=lambda _a, _b: {"small/0": 30.0, "large/0": 70.0, OTHERS: 0.0},
        is_activity_late=True,
    )
    first = bench.begin("r", "small/0")
    bench.clock.advance(0.3)
    bench.end(first, 1, 1)
    second = bench.begin("r", "large/0")
    bench.clock.advance(0.7)
    bench.end(second, 1, 1)
    bench.books.request_finished("r", "large")
    bench.clock.advance(1)
    bench.books.settle()
    (one,) = bench.settled
    # 0.3 s and 0.7 s of 100 W, each whole; split at every moment by 30 to 70 it would be 58.
    assert one.active_j == pytest.approx(100)
    assert one.tiers == {"small": pytest.approx(30), "large": pytest.approx(70)}
    assert one.flags == ()
    # Nobody works in the second after: what the driver saw splits it.
    assert bench.booked(Booking.IDLE, "small") == pytest.approx(30)
    assert bench.booked(Booking.IDLE, "large") == pytest.approx(70)


def test_work_that_late_activity_did_not_see_is_allocated() -> None:
    bench = Bench(
        Meter(),
        replicas={"small/0": "small", "large/0": "large"},
        activity=lambda _a, _b: {"small/0": 0.0, "large/0": 70.0, OTHERS: 0.0},
        is_activity_late=True,
    )
    stint = bench.begin("r", "small/0")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.books.settle()
    (one,) = bench.settled
    assert (one.active_j, one.flags) == (pytest.approx(100), (Flag.ALLOCATED.value,))


def test_without_measured_activity_a_shared_gpu_is_allocated_among_the_busy() -> None:
    bench = Bench(Meter(), replicas={"small/0": "small", "large/0": "large"})
    small, large = bench.begin("a", "small/0"), bench.begin("b", "large/0")
    bench.clock.advance(1)
    bench.end(small, 1, 1)
    bench.clock.advance(1)
    bench.end(large, 1, 1)
    bench.books.request_finished("a", "small")
    bench.books.request_finished("b", "large")
    bench.clock.advance(1)
    bench.books.settle()
    by_id = {one.request_id: one for one in bench.settled}
    assert by_id["a"].active_j == pytest.approx(50)
    assert by_id["b"].active_j == pytest.approx(150)
    assert by_id["b"].flags == (Flag.ALLOCATED.value,)
    assert bench.booked(Booking.IDLE, "small") == pytest.approx(50)
    assert bench.booked(Booking.IDLE, "large") == pytest.approx(50)


def test_components_are_charged_side_by_side() -> None:
    bench = Bench(Meter(), Meter(power_w=40), replicas=ALONE)
    stint = bench.begin("r")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.books.settle()
    (one,) = bench.settled
    assert (one.component, one.active_j) == ("gpu", pytest.approx(100))
    assert one.components["cpu"].energy_j == pytest.approx(40)


def test_without_a_meter_everything_is_null_with_the_reason() -> None:
    bench = Bench(AbsentMeter("no energy counter on this machine"), replicas=ALONE)
    stint = bench.begin("r")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.begin("empty")
    bench.books.settle()
    (one,) = bench.settled
    assert (one.active_j, one.loaded_j, one.edge_j, one.tiers) == (
        None,
        None,
        None,
        {"small": None},
    )
    assert (one.source, one.reason) == ("unavailable", "no energy counter on this machine")
    assert bench.books.totals.joules == {}
    assert bench.books.totals.unknown_s == {("small", "gpu"): pytest.approx(1)}
    assert bench.books.loaded_factor("small") is None


def test_a_request_that_took_no_time_costs_nothing_only_where_there_is_a_meter() -> None:
    for meter, expected in ((Meter(), 0), (AbsentMeter("none"), None)):
        bench = Bench(meter, replicas=ALONE)
        bench.clock.advance(1)
        bench.end(bench.begin("r"))
        bench.books.request_finished("r", None)
        bench.books.settle()
        assert bench.settled[0].active_j == expected


def test_a_window_without_a_reading_makes_its_requests_unknown_and_no_others() -> None:
    bench = Bench(Meter(gaps=[(1001.2, 1001.4)]), replicas=ALONE)
    for request_id in ("before", "within", "after"):
        stint = bench.begin(request_id)
        bench.clock.advance(1)
        bench.end(stint, 1, 1)
        bench.books.request_finished(request_id, "small")
        bench.books.settle()
    assert [one.active_j for one in bench.settled] == [
        pytest.approx(100),
        None,
        pytest.approx(100),
    ]
    assert bench.settled[1].reason == "GPU is lost"


def test_time_is_settled_only_once_the_meter_and_all_requests_in_it_are_final() -> None:
    meter = Meter(known_until_s=1000.5)
    bench = Bench(meter, replicas=ALONE)
    stint, long = bench.begin("r"), bench.begin("long")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.books.settle()
    assert bench.settled == []
    meter.known_until_s = 1001
    bench.books.settle()
    assert bench.settled == []  # `long` still runs, and its tokens are not known
    bench.end(long, 3, 3)
    bench.books.settle()
    assert bench.settled[0].active_j == pytest.approx(25)


def test_a_request_that_runs_too_long_is_not_waited_for() -> None:
    bench = Bench(Meter(), replicas=ALONE, settle_within_s=10.0)
    long, stint = bench.begin("long"), bench.begin("r")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.clock.advance(5)
    bench.books.settle()
    assert bench.settled == []
    bench.clock.advance(6)
    bench.books.settle()
    assert bench.settled[0].active_j == pytest.approx(50)
    bench.end(long, 5, 5)
    bench.books.request_finished("long", "small")
    bench.books.settle()
    assert bench.settled[1].active_j == pytest.approx(1150)
    assert bench.settled[1].flags == (Flag.ESTIMATED.value,)


def test_a_meter_that_is_never_read_again_holds_nothing_up() -> None:
    meter = Meter(known_until_s=1000.0)
    bench = Bench(meter, replicas=ALONE)
    stint = bench.begin("r")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.request_finished("r", "small")
    bench.clock.advance(11)
    bench.books.settle()
    assert len(bench.settled) == 1


def test_a_request_whose_end_is_never_told_is_settled_in_the_end() -> None:
    bench = Bench(Meter(), replicas=ALONE)
    stint = bench.begin("r")
    bench.clock.advance(1)
    bench.end(stint, 1, 1)
    bench.books.settle()
    assert bench.settled == []
    bench.clock.advance(3601)
    bench.books.settle()
    assert bench.settled[0].active_j == pytest.approx(100)


def test_a_model_is_told_what_the_replica_did() -> None:
    seen: list[Activity] = []

    def power_w(activity: Activity) -> float:
        seen.append(activity)
        return 10.0

    bench = Bench(ModelMeter(power_w, grade="fleet-fit"), replicas=ALONE)
    stint = bench.begin("r")
    bench.clock.advance(0.5)
    bench.end(stint, 10, 5)
    bench.books.request_finished("r", "small")
    bench.books.settle()
    assert bench.settled[0].source == "model:fleet-fit"
    assert seen[0] == Activity(running=1, prompt_tokens_per_s=20, output_tokens_per_s=10)


def test_replicas_are_in_one_site_of_a_component_only() -> None:
    site = Site(SiteSettings(component="gpu", replicas=ALONE, weights={}), Meter(), start_s=0)
    with pytest.raises(ValueError, match="small/0 is in two sites of component gpu"):
        EnergyBooks([site, site], clock=FakeClock(), on_settled=lambda _: None)
    with pytest.raises(ValueError, match="at least one site"):
        EnergyBooks([], clock=FakeClock(), on_settled=lambda _: None)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "cancel", "move", "settle", "finish"]),
        st.integers(0, 7),
        st.floats(0, 3),
        st.integers(0, 50),
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(
    events=EVENTS,
    power_w=st.floats(1, 1000),
    gaps=st.lists(st.floats(0, 60), max_size=3),
    is_measured=st.booleans(),
    settle_within_s=st.floats(0.5, 20),
)
def test_requests_and_idle_sum_to_what_was_measured(
    events: list[tuple[str, int, float, int]],
    power_w: float,
    gaps: list[float],
    is_measured: bool,
    settle_within_s: float,
) -> None:
    """Random schedules: retries, escalations, cancellations, restarts, windows without a token."""
    meter = Meter(power_w=power_w, gaps=[(1000 + at, 1000 + at + 0.2) for at in gaps])
    activity = {"small/0": 2.0, "small/1": 0.0, "large/0": 1.0, OTHERS: 0.5}
    bench = Bench(
        meter,
        activity=(lambda _a, _b: activity) if is_measured else None,
        settle_within_s=settle_within_s,
    )
    running: list[Stint] = []
    for what, which, seconds, tokens in events:
        if what == "begin":
            running.append(bench.begin(f"r{which}", list(TIERS)[which % 3]))
        elif what in ("end", "cancel") and running:
            stint = running.pop(which % len(running))
            bench.end(stint, *((tokens, which) if what == "end" else ()))
        elif what == "finish":
            bench.books.request_finished(f"r{which}", "small")
        elif what == "settle":
            bench.books.settle()
        bench.clock.advance(seconds if what == "move" else 0.0)
    for stint in running:
        bench.end(stint)
    for which in range(8):
        bench.books.request_finished(f"r{which}", None)
    bench.books.settle()
    measured_j = math.fsum(meter.told_j)
    assert bench.all_booked() == pytest.approx(measured_j, rel=1e-6, abs=1e-9)
    charged = [one.active_j for one in bench.settled]
    if not gaps:
        elapsed_s = bench.clock.monotonic_s() - 1000
        assert measured_j == pytest.approx(power_w * elapsed_s, rel=1e-6, abs=1e-9)
        assert all(one is not None for one in charged)
        rest_j = bench.booked(Booking.OTHERS, None) + sum(
            bench.booked(Booking.IDLE, tier) for tier in ("small", "large")
        )
        requests_j = math.fsum(one for one in charged if one is not None)
        assert requests_j + rest_j == pytest.approx(measured_j, rel=1e-6, abs=1e-9)
    assert all(one is None or one >= 0 for one in charged)


def test_weights_are_by_tier() -> None:
    clock, settled = FakeClock(), list[SettledEnergy]()
    site = Site(
        SiteSettings(
            component="gpu",
            replicas=ALONE,
            weights={"small": TokenWeights(prompt=0.0, output=1.0)},
        ),
        Meter(),
        start_s=1000,
    )
    books = EnergyBooks([site], clock=clock, on_settled=settled.append)
    pair = [begun(books, clock, name, "small/0") for name in "ab"]
    clock.advance(1)
    for stint, tokens in zip(pair, ((900, 1), (10, 3)), strict=True):
        stint.prompt_tokens, stint.output_tokens = tokens
        stint.end_s = clock.monotonic_s()
    for name in "ab":
        books.request_finished(name, "small")
    books.settle()
    assert [one.active_j for one in settled] == pytest.approx([25, 75])


def test_what_the_meters_are_not_final_for_at_the_end_is_told_as_unknown() -> None:
    meter = Meter()
    bench = Bench(meter, replicas=ALONE)
    early, late = bench.begin("early"), bench.begin("late")
    bench.clock.advance(1)
    bench.end(early, 1, 1)
    bench.books.request_finished("early", "small")
    meter.known_until_s = bench.clock.monotonic_s()
    bench.clock.advance(0.5)
    bench.end(late, 1, 1)
    bench.begin("cut")  # still runs when the server ends
    bench.books.close()
    by_id = {one.request_id: one for one in bench.settled}
    assert by_id.keys() == {"early", "late", "cut"}
    # Of the first second's 100 J: its 2 tokens of 2 + 2 / 1.5.
    assert by_id["early"].active_j == pytest.approx(60)
    for name in ("late", "cut"):
        assert (by_id[name].active_j, by_id[name].source) == (None, "unavailable")
        assert by_id[name].reason == "the server stopped before its meters were final"
    bench.books.close()
    assert len(bench.settled) == 3  # each told once
