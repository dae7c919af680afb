"""How many model processes this machine can bear, and on which devices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from medvlm.batch.engine import Settings
from medvlm.errors import ConfigError, UsageError

PROCESS_BYTES = 2_000_000_000  # a model, a study in work and one decoded ahead
WORTH_A_PROCESS = 4  # studies, under which loading a model takes longer than it saves
UNLIMITED = 1 << 62
DEVICE_NAME = re.compile(r"auto|cpu|cuda(:\d+)?", re.ASCII)


def devices(wanted: str) -> list[str]:
    """The devices to give processes to: GPUs, or ["cpu"].

    Raises UsageError for a name that is none, ConfigError where there is no GPU.
    """
    if not DEVICE_NAME.fullmatch(wanted):
        raise UsageError(f"--device: there is no {wanted}", remedy="auto, cpu, cuda or cuda:N")
    if wanted == "cpu" or wanted.startswith("cuda:"):
        return [wanted]
    if count := gpu_count():
        return [f"cuda:{number}" for number in range(count)]
    if wanted == "auto":
        return ["cpu"]
    raise ConfigError("--device cuda: there is no GPU that torch can use", remedy="leave it out")


def gpu_count() -> int:
    """GPUs that torch can use. It is not imported here, where it would stay."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    ask = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=False
    )
    last = done.stdout.strip().splitlines()[-1:]
    return int(last[0]) if done.returncode == 0 and last and last[0].isdigit() else 0


def process_devices(settings: Settings) -> list[str]:
    """The device of each model process; none where so few studies are drafted in this one."""
    total = UNLIMITED if settings.total is None else settings.total
    if settings.workers is None and total < 2 * WORTH_A_PROCESS:
        return []
    places = devices(settings.device)
    if settings.workers is not None:
        count = min(settings.workers, max(total, 1))
    elif places == ["cpu"]:
        count = min(core_count(), free_bytes() // PROCESS_BYTES, total // WORTH_A_PROCESS)
    else:
        count = min(len(places), total // WORTH_A_PROCESS)
    return [places[number % len(places)] for number in range(max(count, 1))]


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_bytes() -> int:
    """Memory that may still be taken, of the machine or of the container; much if unknown."""
    group = Path("/sys/fs/cgroup")
    most, used = _number(group / "memory.max"), _number(group / "memory.current")
    left = most - used if most is not None and used is not None else UNLIMITED
    return min(left, _available())


def _available() -> int:
    try:
        told = Path("/proc/meminfo").read_text(encoding="ascii")
        line = next(line for line in told.splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return UNLIMITED


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
