"""What Linux says of this machine: NUMA nodes of cores and GPUs, and memory."""

from pathlib import Path

from hybridserve_llm.planner.hardware import NumaNode
from hybridserve_llm.units import KIB

_ROOT = Path("/")


def numa_nodes(cores: tuple[int, ...], root: Path = _ROOT) -> tuple[NumaNode, ...]:
    """NUMA nodes with any of `cores`, each with those it has; empty where Linux does not tell."""
    found = []
    for folder in root.glob("sys/devices/system/node/node[0-9]*"):
        text = _text(folder / "cpulist")
        here = set() if text is None else _numbers(text)
        own = tuple(core for core in cores if core in here)
        if own:
            found.append(NumaNode(number=int(folder.name.removeprefix("node")), cpu_cores=own))
    return tuple(sorted(found, key=lambda node: node.number))


def numa_node_of(pci_address: str, root: Path = _ROOT) -> int | None:
    """The NUMA node that a PCI device is at; None where Linux does not tell."""
    # NVML writes the domain in eight digits, Linux in four.
    domain, _, rest = pci_address.lower().partition(":")
    text = _text(root / "sys/bus/pci/devices" / f"{domain[-4:]}:{rest}" / "numa_node")
    number = -1 if text is None else int(text)
    return None if number < 0 else number


def memory_bytes(root: Path = _ROOT) -> int | None:
    """Memory of this machine, or what its container may have of it; None where nobody tells."""
    lines = (_text(root / "proc/meminfo") or "").splitlines()
    words = [line.split() for line in lines if line.startswith("MemTotal:")]
    limit = _text(root / "sys/fs/cgroup/memory.max")
    bounds = [int(words[0][1]) * KIB] if words else []
    bounds += [int(limit)] if limit is not None and limit.strip().isdigit() else []
    return min(bounds, default=None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _numbers(text: str) -> set[int]:
    """The numbers of a list such as `0-3,8`."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
