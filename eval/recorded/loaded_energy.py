"""Joules of a request at a stated load, by the planner's model: idle time and small batches too.

Measured joules per token are of busy engines. Here the planner chooses replicas and parallelism for
a request rate, and the GPUs that something runs on are paid for whether they are busy or not. Both
figures stand side by side and are never mixed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from eval.recorded.model_names import known_facts_like
from eval.recorded.question_tokens import QuestionTokens
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.demand import Demand, TierDemand
from hybridserve_llm.planner.forecast import forecast
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.planner.tabulate import Tables
from hybridserve_llm.profiles.gpu_types import gpu_type


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEnergy:
    """The planner's best plan for a load: joules a request, its GPUs, and what the figure is worth.

    `energy_j` counts the GPUs of the plan and no parked ones.
    """

    energy_j: float
    n_gpus: int
    grade: str


class LoadedTiers:
    """The tiers of recorded answers, to be planned for at `requests_per_s`."""

    def __init__(
        self,
        chain: tuple[str, ...],
        tokens: QuestionTokens,
        *,
        gpu: str,
        n_gpus: int,
        requests_per_s: float,
    ) -> None:
        """Prompt and output lengths are the recorded means.

        Raises:
            ConfigError: The GPU type, or a model's sizes, are not in the catalogues.
        """
        self.requests_per_s = requests_per_s
        nodes = described_nodes("gpu", gpu_type(gpu), n_gpus=n_gpus)
        self._planner = Planner(cluster=Cluster(nodes=nodes), tables=Tables())
        self._found = {name: _facts(name) for name in chain}
        prompt, output = tokens.prompt.mean(axis=0), tokens.completion.mean(axis=0)
        longest = (tokens.prompt + tokens.completion).max(axis=0)
        self._demands = {
            name: TierDemand(
                name=name,
                facts=self._found[name][1],
                reach=1.0,
                prompt_tokens=float(prompt[i]),
                output_tokens=float(output[i]),
                max_tokens=math.ceil(longest[i]),
            )
            for i, name in enumerate(chain)
        }

    def sizes(self) -> str:
        """Whose sizes were taken, in words."""
        return ", ".join(f"{name} as {hub_id}" for name, (hub_id, _) in self._found.items())

    def energy(self, asked: Mapping[str, float]) -> LoadedEnergy:
        """What a request costs where each tier is asked this share of all requests.

        Raises:
            CannotBeDone: The GPUs do not carry the load.
        """
        tiers = tuple(
            replace(self._demands[name], reach=reach) for name, reach in asked.items() if reach > 0
        )
        demand = Demand(tiers=tiers, requests_per_s=self.requests_per_s)
        solution = self._planner.best(demand)
        if solution is None:
            names = ", ".join(tier.name for tier in tiers)
            raise CannotBeDone(
                f"{self._planner.cluster.n_gpus} GPUs do not carry {self.requests_per_s:g} "
                f"requests per second of {names}; give more, --gpus, or state a lower --rate"
            )
        power_w = solution.power_w - solution.parked_power_w
        return LoadedEnergy(
            energy_j=power_w / self.requests_per_s,
            n_gpus=solution.n_gpus,
            grade=forecast(solution).grade,
        )


def _facts(name: str) -> tuple[str, ModelFacts]:
    found = known_facts_like(name)
    if found is None:
        raise ConfigError(f"--rate: the sizes of {name!r} are not in the catalogue of models")
    return found
