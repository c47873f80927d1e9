"""Unit conversions; the only place where a factor of 1000 or 1024 appears."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def s_to_ms(seconds: float) -> float:
    """Milliseconds in `seconds`."""
    return seconds * 1000


def mj_to_j(millijoules: float) -> float:
    """Joules in `millijoules` (NVML counts energy in millijoules)."""
    return millijoules / 1000


def mw_to_w(milliwatts: float) -> float:
    """Watts in `milliwatts` (NVML tells power in milliwatts)."""
    return milliwatts / 1000


def uj_to_j(microjoules: float) -> float:
    """Joules in `microjoules` (RAPL counts energy in microjoules)."""
    return microjoules / 1_000_000
