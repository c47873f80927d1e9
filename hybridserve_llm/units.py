"""Convert units; no other file multiplies by 1000 or 1024."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def s_to_ms(seconds: float) -> float:
    """Return `seconds` in milliseconds."""
    return seconds * 1000


def mj_to_j(millijoules: float) -> float:
    """Return `millijoules` in joules (NVML counts energy in millijoules)."""
    return millijoules / 1000


def mw_to_w(milliwatts: float) -> float:
    """Return `milliwatts` in watts (NVML reports power in milliwatts)."""
    return milliwatts / 1000


def uj_to_j(microjoules: float) -> float:
    """Return `microjoules` in joules (RAPL counts energy in microjoules)."""
    return microjoules / 1_000_000
