"""What was measured, as tables of 80 columns and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.units import s_to_ms
from launch.profiling.prediction import Check
from launch.profiling.session import Profiled

_PERCENT = 100
_UNKNOWN = "-"


def points_table(profiled: Profiled) -> Table:
    """The points of a profile, one row each."""
    table = Table(title=f"{profiled.tier}: {profiled.path}", title_justify="left", box=None)
    columns = ("at a time", "tok/s", "low", "high", "req/s", "step", "ITL", "TTFT", "W", "cores")
    for name in (*columns, "others"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in profiled.profile.points:
        table.add_row(
            f"{point.concurrency:g}",
            f"{point.output_tokens_per_s:.0f}",
            _shown(point.lowest_output_tokens_per_s, ".0f"),
            _shown(point.highest_output_tokens_per_s, ".0f"),
            _shown(point.requests_per_s, ".1f"),
            f"{s_to_ms(point.step_time_s):.1f}",
            _shown_ms(point.itl_s),
            _shown_ms(point.ttft_s),
            _shown(point.power_w, ".1f"),
            _shown(point.engine_cores, ".2f"),
            _shown(point.other_cores, ".2f"),
        )
    table.caption, table.caption_justify = _power_in_words(profiled.profile), "left"
    return table


def _power_in_words(profile: Profile) -> str:
    """Where the watts come from, or why there are none."""
    told = next((point for point in profile.points if point.power_reason), profile.points[0])
    reason = f": {told.power_reason}" if told.power_reason else ""
    idle = f"; idle {_shown(profile.idle_w, '.1f')} W"
    bare = "" if profile.bare_idle_w is None else f", {profile.bare_idle_w:.1f} W without engine"
    return f"W: {told.power_source}{reason}{idle}{bare}"


def checks_table(profiled: Sequence[Profiled]) -> Table:
    """Predicted and measured throughput at the loads that the tables leave out."""
    table = Table(title="output tokens/s predicted from the table", title_justify="left", box=None)
    table.add_column("tier")
    for name in ("at a time", "predicted", "median", "error", "measured"):
        table.add_column(name, justify="right")
    for one in profiled:
        for check in one.checks:
            table.add_row(one.tier, *_check_cells(check))
    return table


def _check_cells(check: Check) -> list[str]:
    return [
        str(check.concurrency),
        f"{check.predicted_tokens_per_s:.0f}",
        f"{check.median_tokens_per_s:.0f}",
        f"{check.error * _PERCENT:+.1f} %",
        " ".join(f"{value:.0f}" for value in check.measured_tokens_per_s),
    ]


def to_json(profiled: Sequence[Profiled]) -> str:
    """All of it, indented."""
    return json.dumps({"tiers": [_as_json(one) for one in profiled]}, indent=2)


def _as_json(one: Profiled) -> dict[str, Any]:
    return {
        "tier": one.tier,
        "path": one.path,
        "profile": json.loads(one.profile.to_json()),
        "windows": [asdict(window) for found in one.windows.values() for window in found],
        "checks": [
            {
                "concurrency": check.concurrency,
                "predicted_tokens_per_s": check.predicted_tokens_per_s,
                "measured_tokens_per_s": list(check.measured_tokens_per_s),
                "median_tokens_per_s": check.median_tokens_per_s,
                "error": check.error,
            }
            for check in one.checks
        ],
    }


def _shown(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _shown_ms(value_s: float | None) -> str:
    return _UNKNOWN if value_s is None else f"{s_to_ms(value_s):.1f}"
