"""What ``maury train`` says of autoencoders: the search, and reconstruction and gap before and after the transfer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from maury.recipes import TrainingRun


def print_transfer(console: Console, run: TrainingRun, plots: Path | None) -> None:
    """Print the tables of a run that has autoencoders; ``plots``: folder for the figure."""
    import numpy as np

    from maury.assess.gap_transfer import transfer_gap
    from maury.cli.assess import print_table
    from maury.report.style import save_figure
    from maury.report.transfer_figure import transfer_figure

    assert run.transfer is not None  # the caller has looked
    if run.transfer.search:
        kept = len(run.transfer.networks)
        console.print(f"\nautoencoders searched, cross-validated mean squared error of the inputs; the first {kept} are kept:")
        rows = [[str(c.width), f"{c.penalty:.3g}", f"{c.error:.4g}"] for c in run.transfer.search]
        print_table(console, ["first layer", "penalty", "error"], rows)
    console.print("\nreconstruction, rms of the flux over usable pixels (noise of the spectra included):")
    rows = [
        [error.spectra, str(error.n), f"{np.sqrt(error.before):.5f}", f"{np.sqrt(error.after):.5f}"]
        for error in run.transfer.errors
    ]
    print_table(console, ["stars", "n", "before", "after"], rows)
    observed = run.training_set.observed
    if observed is None:
        return
    synthetic = run.training_set.spectra[np.flatnonzero(~run.training_set.from_files)]
    after = [stack.encoder for stack in run.transfer.networks]
    spaces = transfer_gap(synthetic, observed, run.transfer.before, after)
    console.print(
        "\ngap of the observed spectra, synthetic ones with noise like theirs: distance to the tenth nearest over the largest "
        "among\nsynthetic ones (median), share beyond 1, and the area under the ROC curve of a classifier (0.5: no gap, 1: wide):"
    )
    rows = []
    for s in spaces:
        area = f"{s.auc:.3f} +- {s.auc_error:.3f}" if np.isfinite(s.auc) else "-"
        rows.append([s.space, str(s.n), f"{s.ratio:.2f}", f"{100 * s.beyond:.0f} %", area])
    print_table(console, ["stars", "n", "median gap", "gap > 1", "AUC"], rows)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        save_figure(transfer_figure(spaces, run.transfer.errors), plots / "transfer.png")
