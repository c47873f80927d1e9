"""Print the result of the study `check_simulator` for a person, at 80 columns."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eval.studies.birth_death_check import BirthDeathCheck, Pair
from eval.studies.engine_log_check import EngineLogCheck
from eval.studies.live_engine_check import LiveEngineCheck

_MILLI = 1000.0


def print_check(
    found: BirthDeathCheck | EngineLogCheck | LiveEngineCheck, console: Console
) -> None:
    """Print the table of the check."""
    if isinstance(found, BirthDeathCheck):
        _print_birth_death(found, console)
    elif isinstance(found, EngineLogCheck):
        _print_log(found, console)
    else:
        _print_engine(found, console)


def _table(first: str, *heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _print_birth_death(found: BirthDeathCheck, console: Console) -> None:
    table = _table("model", "load", "J/token", "off", "s", "off", "TTFT s", "off")
    for point in found.points:
        table.add_row(
            point.model.rpartition("/")[2].removesuffix("-Instruct"),
            f"{point.load:g}",
            *(
                cell
                for pair in (point.energy_j_per_token, point.latency_s, point.ttft_s)
                for cell in _cells(pair)
            ),
        )
    console.print(table)
    console.print(
        f"{found.n_requests} requests at each load. Simulated, and how far the chain is off it; "
        f"at most {found.worst('energy_j_per_token'):.1%} in J a token, "
        f"{found.worst('latency_s'):.1%} in s, {found.worst('ttft_s'):.1%} in TTFT"
    )


def _cells(pair: Pair) -> tuple[str, str]:
    return f"{pair.simulated:.3g}", f"{pair.error:+.1%}"


def _print_log(found: EngineLogCheck, console: Console) -> None:
    table = _table("calibrated", "judged", "step x", "KV tokens", "s", "off", "each", "TTFT")
    for half in found.halves:
        table.add_row(
            half.calibrated_on or "nothing",
            half.judged_on,
            f"{half.calibration.step:.3g}",
            str(half.kv_cache_tokens),
            f"{half.latency_s:.1f}",
            f"{half.latency_error:+.1%}",
            f"{half.request_error:.1%}",
            f"{half.ttft_error:+.1%}",
        )
    console.print(table)
    console.print(
        f"{found.n_requests} requests. Mean simulated latency, how far it is off the measured "
        "mean, how far each request is off on average, and the mean time to the first token"
    )


def _print_engine(found: LiveEngineCheck, console: Console) -> None:
    console.print(found.engine)
    heads = "ms", "simulated", "off", "all", "CPU ms", "simulated", "off"
    table = _table("load", *heads)
    for summary in found.summaries:
        runs = [run for run in found.runs if run.load == summary.load]
        table.add_row(
            f"{summary.load:g}",
            _ms(summary.latency_s),
            _ms(summary.simulated_latency_s),
            f"{summary.latency_error:+.1%}",
            " ".join(f"{run.latency_error * 100:+.0f}" for run in runs),
            _ms(summary.cpu_s),
            _ms(summary.simulated_cpu_s),
            "-" if summary.cpu_error is None else f"{summary.cpu_error:+.1%}",
        )
    console.print(table)
    others = [run.other_cores for run in found.runs if run.other_cores is not None]
    if others:
        console.print(
            f"medians over rounds; cores used by all else, client included: {min(others):.2f} to "
            f"{max(others):.2f}"
        )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * _MILLI:.1f}"
