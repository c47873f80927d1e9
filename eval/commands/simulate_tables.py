"""What `hs-eval simulate` prints for a person, at 80 columns."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eval.commands.simulate import PLANNED, Simulation
from eval.simulator.outcome import Outcome, Spread

_KILO = 1000.0
_JOULES_A_KWH = 3.6e6
_UNKNOWN = "-"
_YES_NO = {True: "yes", False: "no", None: _UNKNOWN}


def print_simulation(simulation: Simulation, console: Console) -> None:
    """Prints the cascades side by side, then the tiers of the planned one."""
    requests = simulation.requests
    console.print(
        f"{len(requests)} requests in {requests.span_s:.0f} s "
        f"({requests.mean_per_s:.4g} a second), "
        f"{requests.prompt_tokens.mean():.0f} tokens in and {requests.output_tokens.mean():.0f} out"
    )
    planned = simulation.outcomes[PLANNED]
    console.print(
        f"joules, goodput and GPU-hours: from {planned.window_begins_s:.0f} to "
        f"{planned.window_ends_s:.0f} s, the same for all"
    )
    if (load := simulation.planned_for) is not None:
        console.print(
            f"the plan is for {load.requests_per_s:.4g} a second, {load.prompt_tokens:.0f} tokens "
            f"in and {load.output_tokens:.0f} out"
        )
    console.print(_cascades(simulation))
    console.print(_tiers(simulation.outcomes[PLANNED]))
    for name, reason in simulation.not_compared.items():
        console.print(f"not compared with {name}: {reason}")
    console.print(_gears(simulation))
    for assumption in simulation.plan_assumptions:
        console.print(f"the plan assumed: {assumption}")


def _cascades(simulation: Simulation) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in simulation.outcomes:
        table.add_column(name, justify="right")
    found = list(simulation.outcomes.values())
    rows: dict[str, list[str]] = {
        "GPUs used / parked": [_gpus(one) for one in found],
        "planned for, a second": [_number(one.planned_for_per_s) for one in found],
        "planned within the SLO": [_YES_NO[one.keeps_slo] for one in found],
        "GPU-hours, not parked": [f"{one.gpu_hours:.1f}" for one in found],
        "energy, kWh": [f"{one.energy_j / _JOULES_A_KWH:.3f}" for one in found],
        "of it parked GPUs, kWh": [f"{one.parked_energy_j / _JOULES_A_KWH:.3f}" for one in found],
        "answers ended": [str(one.window_answers) for one in found],
        "J a request": [_number(one.energy_j_per_request) for one in found],
        "J a token of answers": [_number(one.energy_j_per_answer_token) for one in found],
        "latency mean, s": [_of(one.latency_s, "mean") for one in found],
        "latency p95, s": [_of(one.latency_s, "p95") for one in found],
        "latency p99, s": [_of(one.latency_s, "p99") for one in found],
        "TTFT mean, s": [_of(one.ttft_s, "mean") for one in found],
        "TTFT p95, s": [_of(one.ttft_s, "p95") for one in found],
        "goodput, a second": [_number(one.goodput_per_s) for one in found],
        "failed requests": [str(one.failed) for one in found],
        "energy saved by the plan": [_saved(simulation.outcomes[PLANNED], one) for one in found],
        "grade": [one.grade for one in found],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _tiers(found: Outcome) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="tiers of the plan")
    heads = "tier", "n", "asked", "busy", "batch", "TTFT s", "ITL ms", "s", "kWh"
    for head in heads:
        table.add_column(head, justify="left" if head == "tier" else "right")
    for tier in found.tiers:
        table.add_row(
            tier.tier,
            str(tier.replicas),
            str(tier.requests),
            _UNKNOWN if tier.busy_share is None else f"{tier.busy_share:.0%}",
            _UNKNOWN if tier.mean_batch is None else f"{tier.mean_batch:.1f}",
            _of(tier.ttft_s, "mean"),
            _UNKNOWN if tier.itl_s is None else f"{_KILO * tier.itl_s:.1f}",
            _of(tier.latency_s, "mean"),
            f"{tier.energy_j / _JOULES_A_KWH:.3f}",
        )
    return table


def _gears(simulation: Simulation) -> str:
    if not simulation.gears:
        return "gears: the plan's file has none (hs-launch --dry-run --explain --json writes them)"
    if simulation.gear_changes is None:
        return f"gears: {len(simulation.gears)} in the plan's file, not simulated (--gears does)"
    rates = [f"{gear.requests_per_s:g}" for gear in simulation.gears]
    at = [f"{rates[change.gear]} at {change.at_s:.0f} s" for change in simulation.gear_changes]
    return f"gears for {', '.join(rates)} requests/s; changed to {', '.join(at)}"


def _gpus(found: Outcome) -> str:
    used = sum(tier.gpus for tier in found.tiers)
    parked = used * found.parked_gpu_hours / found.gpu_hours if found.gpu_hours else 0.0
    return f"{used:.0f} / {parked:.0f}"


def _saved(planned: Outcome, other: Outcome) -> str:
    return _UNKNOWN if other is planned else f"{1 - planned.energy_j / other.energy_j:.1%}"


def _of(spread: Spread | None, name: str) -> str:
    return _number(None if spread is None else getattr(spread, name))


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4g}"
