"""All benchmarks in one table: ``make bench``, which is ``OMP_NUM_THREADS=1 python -m benchmarks``.

Ratios are measured side by side in this run; a peer that is not installed is skipped with a sentence. Nothing fails on
speed. Another file ``bench_*.py`` with a function ``run`` joins by being there.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import benchmarks
from benchmarks.side_by_side import Row, print_rows

COLD_STARTS = 5
COLD_START_AIM_MS = 500.0
PACKAGES = ("maury", "numpy", "scipy", "astropy", "TheCannon", "spectres", "specutils", "PyAstronomy")


def cold_start() -> Row:
    """``python -m maury --help`` in a new process; the peer is the interpreter that does nothing."""

    def median_ms(arguments: list[str]) -> float:
        times = []
        for _ in range(COLD_STARTS):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    ours, bare = median_ms(["-m", "maury", "--help"]), median_ms(["-c", ""])
    verdict = "aim reached" if ours <= COLD_START_AIM_MS else "aim MISSED"
    return {
        "name": "maury --help, new process",
        "peer": "python -c ''",
        "ratio": bare / ours,
        "ours_ms": ours,
        "peer_ms": bare,
        "agreement": f"{verdict}: {COLD_START_AIM_MS:.0f} ms",
    }


def machine() -> str:
    """Processor, cores, load and versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    threads = os.environ["OMP_NUM_THREADS"]
    return f"{cpu}, {os.cpu_count()} cores, {load}, {threads} thread; {', '.join(found)}"


def rows() -> Iterator[Row]:
    """Of all files ``bench_*.py``, as they come, and of a cold start."""
    for module in sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_")):
        yield from importlib.import_module(f"benchmarks.{module}").run()
    yield cold_start()


def main() -> None:
    """Run everything, print one table."""
    print(machine(), flush=True)
    print_rows(rows())


if __name__ == "__main__":
    main()
