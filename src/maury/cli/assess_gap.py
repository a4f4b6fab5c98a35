"""The part ``--gap`` of ``maury assess``: how far the spectra lie from those that the model was trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from maury.assess.domain import WindowGap
    from maury.assess.gap import SyntheticGap
    from maury.estimates import LabelEstimates
    from maury.labels import LabelSet
    from maury.model import Model
    from maury.spectra import Spectra

    FloatArray = NDArray[np.float64]

_ON_MAP = 400  # synthetic spectra of each sort


def assess_gap(
    console: Console,
    model: Model,
    batches: list[Spectra],
    formal: LabelEstimates,
    truth: FloatArray | None,
    plots: Path | None,
) -> None:
    """Print the gap of the set in each window, and how well it tells errors where labels are known; draw it.

    Parameters
    ----------
    formal : the model's estimates of the raw ``batches``; truth : (n, K) known labels of the same spectra, or None.
    """
    from maury.assess.domain import set_gap
    from maury.assess.gap import largest
    from maury.errors import UsageError

    prepared = model.preparation.prepare_each(batches)
    if prepared.spectra is None:
        raise UsageError(f"expected spectra that can be prepared, got none; the first: {prepared.failures[0].reason}")
    first = [0]
    for batch in batches:
        first.append(first[-1] + len(batch))
    rows = [first[source.batch] + source.row for source in prepared.sources]
    found = formal[rows]
    ratios, gap = model.gap_ratios(prepared.spectra, found), model.checked_gap()
    windows = set_gap(gap, prepared.spectra, ratios, model.left_velocity(found))
    _print_windows(console, windows, len(gap.windows[0].references))
    ratio = largest(ratios)
    notes: list[str] = []
    residual = None
    if truth is not None:
        residual = found.values - truth[rows]
        notes = _print_correlations(console, found.labels, ratio, residual)
    if plots is not None:
        _plots(console, gap, prepared.spectra, windows, ratio, plots)
        _write_stars(found, windows, plots / "gap.csv")
        if residual is not None:
            _error_plot(found.labels, ratio, residual, notes, plots)


def _print_windows(console: Console, windows: list[WindowGap], n_reference: int) -> None:
    import numpy as np

    from maury.cli.assess import print_table

    console.print(
        f"\ngap to {n_reference} training spectra: distance to the tenth nearest beyond noise and model error, over the largest "
        "that is\nexplained; then the share of spectra beyond the 99th percentile of plain distances among training spectra, as "
        "they are\nand with noise; and the area under the ROC curve of a classifier (0.5: no gap, 1: a wide one):"
    )
    rows = []
    for window in windows:
        known = window.ratio[np.isfinite(window.ratio)]
        median = f"{np.median(known):.2f}" if known.size else "-"
        plain = [_percent(share) for share in window.plain.values()]
        area = f"{window.auc:.3f} +- {window.auc_error:.3f}" if np.isfinite(window.auc) else "-"
        rows.append([f"{window.low:.2f}-{window.high:.2f} Å", str(known.size), median, _percent(window.beyond), *plain, area])
    heads = [("plain" if not np.isfinite(snr) else f"S/N {snr:g}") for snr in windows[0].plain]
    print_table(console, ["window", "n", "median gap", "gap > 1", *heads, "AUC"], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "-"


def _print_correlations(console: Console, labels: LabelSet, ratio: FloatArray, residual: FloatArray) -> list[str]:
    """Spearman's rank correlation of the gap with the absolute error of each label; a note for each."""
    import numpy as np
    from scipy.stats import spearmanr

    from maury.cli.assess import print_table

    rows, notes = [], []
    for label, values in zip(labels.labels, np.abs(residual).T, strict=True):
        known = np.isfinite(ratio) & np.isfinite(values)
        rho, p = (float("nan"), float("nan"))
        if known.sum() >= 3 and np.ptp(ratio[known]) > 0 and np.ptp(values[known]) > 0:
            result = spearmanr(ratio[known], values[known])
            rho, p = float(result.statistic), float(result.pvalue)
        rows.append([label.name, str(int(known.sum())), f"{rho:+.2f}", f"{p:.2g}"])
        notes.append(f"rank correlation {rho:+.2f}\nn = {int(known.sum())}")
    console.print("\nrank correlation (Spearman) of the gap with |estimated - known label|, and how likely chance is to give it:")
    print_table(console, ["label", "n", "correlation", "p"], rows)
    return notes


def _plots(
    console: Console, gap: SyntheticGap, spectra: Spectra, windows: list[WindowGap], ratio: FloatArray, folder: Path
) -> None:
    """The map is of the window with the widest gap, without velocities taken out."""
    import numpy as np

    from maury.assess.domain import SNR_VARIANTS
    from maury.report.gap_figure import NO_UMAP, OBSERVED, gap_figure, gap_map, has_umap
    from maury.report.style import save_figure

    medians = [np.median(w.ratio[np.isfinite(w.ratio)]) if np.isfinite(w.ratio).any() else -np.inf for w in windows]
    window = gap.windows[int(np.argmax(medians))]
    random = np.random.default_rng(0)
    chosen = random.permutation(len(window.references))[:_ON_MAP]
    groups = {}
    for snr in SNR_VARIANTS:
        name = f"synthetic, S/N {snr:g}" if np.isfinite(snr) else "synthetic"
        groups[name] = window.reference_flux(snr, random)[chosen]
    own = window.without_modes(spectra.flux, spectra.ivar)[0]
    groups[OBSERVED] = own / np.maximum(np.sqrt((own**2).sum(axis=1, keepdims=True)), 1e-300)
    if not has_umap():
        console.print(NO_UMAP, markup=False, soft_wrap=True)
    title = f"synthetic and observed spectra, {window.low:.0f}–{window.high:.0f} Å"
    figure = gap_figure(gap_map(groups), ratio, axes="UMAP" if has_umap() else "principal component", title=title)
    save_figure(figure, folder / "gap.png")


def _error_plot(labels: LabelSet, ratio: FloatArray, residual: FloatArray, notes: list[str], folder: Path) -> None:
    from maury.report.gap_figure import gap_error_figure
    from maury.report.style import save_figure

    save_figure(gap_error_figure(labels.labels, ratio, residual, notes), folder / "gap_error.png")


def _write_stars(found: LabelEstimates, windows: list[WindowGap], path: Path) -> None:
    """One row per spectrum: its ratio and the share of synthetic spectra that look less observed, in each window."""
    from astropy.table import Table

    table = Table({"file": [str(file) for file in found.meta["file"]], "id": [str(name) for name in found.ids]})
    for window in windows:
        ends = f"{window.low:.0f}_{window.high:.0f}"
        table[f"gap_{ends}"] = window.ratio.round(4)
        table[f"looks_observed_{ends}"] = window.synthetic_share.round(4)
    table.write(path, format="ascii.csv", overwrite=True)
