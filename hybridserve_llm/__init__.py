"""HybridServe-LLM: a cascade of LLM tiers on vLLM behind one OpenAI-compatible endpoint.

The names below are the public surface; everything else may change without notice.
"""

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.interfaces import Clock, EnergyMeter, Engine, RecordSink, Scorer
from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Ledger, Verdict

__version__ = "0.1.0"

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
