"""What comparisons share: two calls timed in turn, their ratio in each round, and one form of table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]
"""name, peer, ratio (median over rounds), spread (least, largest), agreement, ours_ms, peer_ms (medians)."""
ROUNDS = 5


def compared(
    name: str,
    peer: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    agreement: str,
    *,
    counts: tuple[int, int] = (1, 1),
    rounds: int = ROUNDS,
) -> Row:
    """Time both in turn, after one call of ours that is not timed: kernels are cached then, libraries loaded.

    Parameters
    ----------
    agreement : how far the two results are apart, measured in the same run.
    counts : how many spectra a call of ours and one of theirs treats.
    """
    ours()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, times, n in zip((ours, theirs), taken, counts, strict=True):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) / n)
    return row_of(name, peer, taken, agreement)


def row_of(name: str, peer: str, taken: tuple[list[float], list[float]], agreement: str) -> Row:
    """The row of times in seconds, ours and theirs, of the same rounds."""
    ratios = [b / a for a, b in zip(*taken, strict=True)]
    return {
        "name": name,
        "peer": peer,
        "ratio": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "agreement": agreement,
        "ours_ms": 1e3 * statistics.median(taken[0]),
        "peer_ms": 1e3 * statistics.median(taken[1]),
    }


def skipped(name: str, peer: str) -> Row:
    """The row of a peer that is not installed."""
    nan = float("nan")
    return {"name": name, "peer": peer, "ratio": nan, "agreement": "not installed: skipped", "ours_ms": nan, "peer_ms": nan}


def print_rows(rows: Iterable[Row]) -> None:
    """A table with its heading."""
    print(f"{'job':52} {'peer':24} {'ratio':>8} {'(range)':>15} {'ours ms':>9} {'peer ms':>9}  agreement", flush=True)
    for row in rows:
        print_row(row)


def print_row(row: Row) -> None:
    """One line of the table."""
    if row["ratio"] != row["ratio"]:  # NaN
        print(f"{row['name']:52} {row['peer']} is not installed: this comparison was skipped.", flush=True)
        return
    spread = f"({row['spread'][0]:.1f}-{row['spread'][1]:.1f})" if "spread" in row else ""
    numbers = f"{row['ratio']:8.1f} {spread:>15} {row['ours_ms']:9.3f} {row['peer_ms']:9.3f}"
    print(f"{row['name']:52} {row['peer']:24} {numbers}  {row['agreement']}", flush=True)
