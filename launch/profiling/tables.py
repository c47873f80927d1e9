"""Show what was measured, as tables of 80 columns and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.reporting.blocks import Paragraph, Table
from hybridserve_llm.reporting.readable import or_dash
from hybridserve_llm.units import s_to_ms
from launch.profiling.session import Profiled

_PERCENT = 100


def points_blocks(profiled: Profiled) -> tuple[Table, Paragraph]:
    """Return the points of a profile, one row each, and where its watts come from."""
    points = Table.of(
        profiled.profile.points,
        f"{profiled.tier}: {profiled.path}",
        {
            "at a time": lambda point: f"{point.concurrency:g}",
            "tok/s": lambda point: f"{point.output_tokens_per_s:.0f}",
            "low": lambda point: or_dash(point.lowest_output_tokens_per_s, ".0f"),
            "high": lambda point: or_dash(point.highest_output_tokens_per_s, ".0f"),
            "req/s": lambda point: or_dash(point.requests_per_s, ".1f"),
            "step": lambda point: f"{s_to_ms(point.step_time_s):.1f}",
            "ITL": lambda point: _ms(point.itl_s),
            "TTFT": lambda point: _ms(point.ttft_s),
            "W": lambda point: or_dash(point.power_w, ".1f"),
            "cores": lambda point: or_dash(point.engine_cores, ".2f"),
            "others": lambda point: or_dash(point.other_cores, ".2f"),
        },
    )
    return points, Paragraph(_power_in_words(profiled.profile))


def _power_in_words(profile: Profile) -> str:
    """Return where the watts come from, or why there are none."""
    point = next((one for one in profile.points if one.power_reason), profile.points[0])
    reason = f": {point.power_reason}" if point.power_reason else ""
    idle = f"; idle {or_dash(profile.idle_w, '.1f')} W"
    bare = "" if profile.bare_idle_w is None else f", {profile.bare_idle_w:.1f} W without engine"
    return f"W: {point.power_source}{reason}{idle}{bare}"


def checks_table(profiled: Sequence[Profiled]) -> Table:
    """Return predicted and measured throughput at the loads that the tables leave out."""
    checks = [(one.tier, check) for one in profiled for check in one.checks]
    return Table.of(
        checks,
        "output tokens/s predicted from the table",
        {
            "tier": lambda row: row[0],
            "at a time": lambda row: str(row[1].concurrency),
            "predicted": lambda row: f"{row[1].predicted_tokens_per_s:.0f}",
            "median": lambda row: f"{row[1].median_tokens_per_s:.0f}",
            "error": lambda row: f"{row[1].error * _PERCENT:+.1f} %",
            "measured": lambda row: " ".join(f"{v:.0f}" for v in row[1].measured_tokens_per_s),
        },
    )


def profiles_as_json(profiled: Sequence[Profiled]) -> str:
    """Return all of it as indented JSON."""
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


def _ms(value_s: float | None) -> str:
    return or_dash(None if value_s is None else s_to_ms(value_s), ".1f")
