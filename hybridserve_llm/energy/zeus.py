"""GPUs that NVML does not serve, by way of Zeus: AMD's, and the one inside an Apple chip.

Zeus (https://ml.energy/zeus, read at version 0.16.0) puts AMD's library and Apple's counters behind
calls that count millijoules as NVML does, so all that makes a trace of NVML's readings makes one of
these. It is not a dependency: the extra `zeus` installs it, and it is imported only here and only
when asked for. Zeus' own windows (`ZeusMonitor.begin_window`) are not used: a window belongs to one
piece of work, and here many requests overlap.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from hybridserve_llm.energy.nvml import ProcessActivity
from hybridserve_llm.errors import CannotBeDone, MeterFault
from hybridserve_llm.values.joules import Source

APPLE = "soc"
"""The name of the GPU inside an Apple chip; all others go by Zeus' index."""

_UNLUCKY = (IndexError, TypeError, ValueError)
"""What Zeus lets through: an index that is not there, and "N/A" where amdsmi tells no number."""


class ZeusReader:
    """`Nvml` over Zeus: a GPU goes by its index as Zeus counts them (`"0"`), or is `APPLE`."""

    sources = (Source.ZEUS_ENERGY, Source.ZEUS_POWER)

    def __init__(self) -> None:
        """Loads Zeus; drivers are opened by the first reading.

        Raises:
            CannotBeDone: Zeus is not installed.
        """
        try:
            self._device = importlib.import_module("zeus.device")
            self._fault: type[Exception] = importlib.import_module("zeus.exception").ZeusBaseError
        except ImportError as exc:
            raise CannotBeDone(
                f"energy.zeus_gpus is set and Zeus cannot be imported ({exc}): "
                "pip install 'hybridserve-llm[zeus]'"
            ) from exc

    def energy_mj(self, uuid: str) -> int:
        """Millijoules since a moment that stays the same while this process runs."""
        if uuid != APPLE:
            return self._ask(uuid, "energy", lambda gpus, i: gpus.get_total_energy_consumption(i))
        try:
            told = self._device.get_soc().get_total_energy_consumption()
        except self._fault as exc:
            raise MeterFault(f"Zeus reads no Apple chip: {exc}") from exc
        energy_mj = getattr(told, "gpu_mj", None)  # other chips' measurements have no such field
        if energy_mj is None:
            raise MeterFault("Zeus tells no energy of this chip's GPU")
        return int(energy_mj)

    def instant_power_mw(self, uuid: str) -> int:
        """Milliwatts now."""
        return self._ask(
            uuid, "instantaneous power", lambda gpus, i: gpus.get_instant_power_usage(i)
        )

    def average_power_mw(self, uuid: str) -> int:
        """Milliwatts over a while that the driver chooses."""
        return self._ask(uuid, "power", lambda gpus, i: gpus.get_average_power_usage(i))

    def power_limit_mw(self, uuid: str) -> int:
        """The limit that is set now."""
        return self._ask(uuid, "power limit", lambda gpus, i: gpus.get_power_management_limit(i))

    def process_activity(self, uuid: str, since_us: int) -> Sequence[ProcessActivity]:
        """Never told.

        Raises:
            MeterFault: Always.
        """
        raise MeterFault("Zeus tells no activity of processes")

    def _ask(self, uuid: str, what: str, call: Callable[[Any, int], Any]) -> int:
        if uuid == APPLE:
            raise MeterFault(f"Zeus tells no {what} of an Apple chip's GPU")
        try:
            return int(call(self._device.get_gpus(), int(uuid)))
        except (self._fault, *_UNLUCKY) as exc:
            raise MeterFault(f"GPU {uuid}: Zeus tells no {what}: {exc}") from exc
