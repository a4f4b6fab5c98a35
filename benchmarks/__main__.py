"""All benchmarks in one table: ``make bench``, which is ``OMP_NUM_THREADS=1 python -m benchmarks``.

Ratios are measured side by side in this run; a peer that is not installed is skipped with a sentence. Nothing fails on
speed. Another file ``bench_*.py`` with a function ``run`` joins by being there.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy is imported
    os.environ.setdefault(_name, "1")

import importlib
import pkgutil
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import benchmarks

COLD_STARTS = 5
COLD_START_AIM_MS = 500.0
PACKAGES = ("maury", "numpy", "scipy", "astropy", "TheCannon", "spectres", "specutils")


def cold_start() -> dict[str, Any]:
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


def main() -> None:
    """Run everything, print one table."""
    print(machine(), flush=True)
    print(f"{'job':44} {'peer':24} {'ratio':>8} {'(range)':>13} {'ours ms':>9} {'peer ms':>9}  agreement", flush=True)
    for module in sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_")):
        for row in importlib.import_module(f"benchmarks.{module}").run():
            _print(row)
    _print(cold_start())


def _print(row: dict[str, Any]) -> None:
    if row["ratio"] != row["ratio"]:  # NaN: skipped
        print(f"{row['name']:44} {row['peer']} is not installed: this comparison was skipped.", flush=True)
        return
    spread = f"({row['spread'][0]:.0f}-{row['spread'][1]:.0f})" if "spread" in row else ""
    numbers = f"{row['ratio']:8.1f} {spread:>13} {row['ours_ms']:9.3f} {row['peer_ms']:9.3f}"
    print(f"{row['name']:44} {row['peer']:24} {numbers}  {row['agreement']}", flush=True)


if __name__ == "__main__":
    main()
