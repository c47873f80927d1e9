"""Serve a cascade of LLM tiers on vLLM behind one OpenAI-compatible endpoint.

The names below are the public surface; everything else may change without notice. Each is imported
when it is first used: a program that only prints its help does not wait for pydantic.
"""

from typing import TYPE_CHECKING

from hybridserve_llm.version import __version__

if TYPE_CHECKING:
    from hybridserve_llm.config.cascade import CascadeConfig
    from hybridserve_llm.config.load import load_config
    from hybridserve_llm.errors import HybridServeError
    from hybridserve_llm.interfaces import Clock, EnergyMeter, Engine, RecordSink, Scorer
    from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Ledger, Verdict
else:
    from importlib import import_module

    _MODULES = {
        "Attempt": "values.ledger",
        "CascadeConfig": "config.cascade",
        "Clock": "interfaces",
        "EnergyMeter": "interfaces",
        "Engine": "interfaces",
        "FinishedRequest": "values.ledger",
        "HybridServeError": "errors",
        "Ledger": "values.ledger",
        "RecordSink": "interfaces",
        "Scorer": "interfaces",
        "Verdict": "values.ledger",
        "load_config": "config.load",
    }

    def __getattr__(name):
        """Import a public name when it is first used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        """Return the public names and those that Python adds to a module."""
        return sorted({*globals(), *__all__})


__all__ = [
    "Attempt",
    "CascadeConfig",
    "Clock",
    "EnergyMeter",
    "Engine",
    "FinishedRequest",
    "HybridServeError",
    "Ledger",
    "RecordSink",
    "Scorer",
    "Verdict",
    "__version__",
    "load_config",
]
