"""Show what `hs-eval simulate` found to a person, at 80 columns."""

from collections.abc import Callable, Iterator

from rich.console import Console

from eval.commands.simulation_result import PLANNED, Simulation
from eval.simulator.outcome import SimulatedOutcome, TimeSpread
from hybridserve_llm.reporting.blocks import Bullets, ReportBlock, Table, print_blocks
from hybridserve_llm.reporting.readable import or_dash

_KILO = 1000.0
_JOULES_A_KWH = 3.6e6
_YES_NO = {True: "yes", False: "no", None: "-"}


def print_simulation(simulation: Simulation, console: Console) -> None:
    """Print the cascades side by side, then the tiers of the planned one."""
    print_blocks(_blocks(simulation), console)


def _blocks(simulation: Simulation) -> Iterator[ReportBlock]:
    yield Bullets(tuple(_about(simulation)))
    yield _cascades(simulation)
    yield _tiers(simulation.outcomes[PLANNED])
    others = [f"not compared with {name}: {why}" for name, why in simulation.not_compared.items()]
    assumed = [f"the plan assumed: {assumption}" for assumption in simulation.plan_assumptions]
    yield Bullets((*others, _gears(simulation), *assumed))


def _about(simulation: Simulation) -> Iterator[str]:
    requests, planned = simulation.requests, simulation.outcomes[PLANNED]
    yield (
        f"{len(requests)} requests in {requests.span_s:.0f} s "
        f"({requests.mean_per_s:.4g} a second), "
        f"{requests.prompt_tokens.mean():.0f} tokens in and {requests.output_tokens.mean():.0f} out"
    )
    yield (
        f"joules, goodput and GPU-hours: from {planned.window_begins_s:.0f} to "
        f"{planned.window_ends_s:.0f} s, the same for all"
    )
    if (load := simulation.planned_for) is not None:
        yield (
            f"the plan is for {load.requests_per_s:.4g} a second, {load.prompt_tokens:.0f} tokens "
            f"in and {load.output_tokens:.0f} out"
        )


def _cascades(simulation: Simulation) -> Table:
    planned = simulation.outcomes[PLANNED]
    rows: dict[str, Callable[[SimulatedOutcome], str]] = {
        "GPUs used / parked": _gpus,
        "planned for, a second": lambda one: or_dash(one.planned_for_per_s),
        "planned within the SLO": lambda one: _YES_NO[one.keeps_slo],
        "GPU-hours, not parked": lambda one: f"{one.gpu_hours:.1f}",
        "energy, kWh": lambda one: _kwh(one.energy_j),
        "of it parked GPUs, kWh": lambda one: _kwh(one.parked_energy_j),
        "answers ended": lambda one: str(one.window_answers),
        "J a request": lambda one: or_dash(one.energy_j_per_request),
        "J a token of answers": lambda one: or_dash(one.energy_j_per_answer_token),
        "latency mean, s": lambda one: _of(one.latency_s, "mean"),
        "latency p95, s": lambda one: _of(one.latency_s, "p95"),
        "latency p99, s": lambda one: _of(one.latency_s, "p99"),
        "TTFT mean, s": lambda one: _of(one.ttft_s, "mean"),
        "TTFT p95, s": lambda one: _of(one.ttft_s, "p95"),
        "goodput, a second": lambda one: or_dash(one.goodput_per_s),
        "failed requests": lambda one: str(one.failed),
        "energy saved by the plan": lambda one: _saved(planned, one),
        "grade": lambda one: one.grade,
    }
    found = simulation.outcomes
    return Table(
        caption="cascades",
        header=("", *found),
        rows=tuple((name, *map(cell, found.values())) for name, cell in rows.items()),
    )


def _tiers(found: SimulatedOutcome) -> Table:
    return Table.of(
        found.tiers,
        "tiers of the plan",
        {
            "tier": lambda tier: tier.tier,
            "n": lambda tier: str(tier.replicas),
            "asked": lambda tier: str(tier.requests),
            "busy": lambda tier: or_dash(tier.busy_share, ".0%"),
            "batch": lambda tier: or_dash(tier.mean_batch, ".1f"),
            "TTFT s": lambda tier: _of(tier.ttft_s, "mean"),
            "ITL ms": lambda tier: or_dash(tier.itl_s and _KILO * tier.itl_s, ".1f"),
            "s": lambda tier: _of(tier.latency_s, "mean"),
            "kWh": lambda tier: _kwh(tier.energy_j),
        },
    )


def _gears(simulation: Simulation) -> str:
    if not simulation.gears:
        return "gears: the plan's file has none (hs-launch --dry-run --explain --json writes them)"
    if simulation.gear_changes is None:
        return f"gears: {len(simulation.gears)} in the plan's file, not simulated (--gears does)"
    rates = [f"{gear.requests_per_s:g}" for gear in simulation.gears]
    at = [f"{rates[change.gear]} at {change.at_s:.0f} s" for change in simulation.gear_changes]
    return f"gears for {', '.join(rates)} requests/s; changed to {', '.join(at)}"


def _kwh(joules: float) -> str:
    return f"{joules / _JOULES_A_KWH:.3f}"


def _gpus(found: SimulatedOutcome) -> str:
    used = sum(tier.gpus for tier in found.tiers)
    parked = used * found.parked_gpu_hours / found.gpu_hours if found.gpu_hours else 0.0
    return f"{used:.0f} / {parked:.0f}"


def _saved(planned: SimulatedOutcome, other: SimulatedOutcome) -> str:
    return "-" if other is planned else f"{1 - planned.energy_j / other.energy_j:.1%}"


def _of(spread: TimeSpread | None, name: str) -> str:
    return or_dash(None if spread is None else getattr(spread, name))
