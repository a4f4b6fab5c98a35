"""Figure of a network's training: losses by epoch, and where each member was best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maury.report.style import BLUE, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maury.train.loop import History


@styled
def history_figure(history: History) -> Figure:
    """Training and validation loss of every member by epoch; a dot marks the weights that were kept."""
    figure = new_figure(7.0, 4.2)
    axes = figure.add_subplot()
    for member in range(history.validation.shape[1]):
        first = member == 0
        axes.plot(history.epoch, history.training[:, member], color=BLUE, lw=1.0, alpha=0.6, label="training" if first else None)
        loss = history.validation[:, member]
        axes.plot(history.epoch, loss, color=VERMILION, lw=1.2, label="validation" if first else None)
        kept = int(np.searchsorted(history.epoch, history.best_epoch[member]))
        mark = "weights kept" if first else None
        axes.plot(history.epoch[kept], loss[kept], "o", color=VERMILION, mec="black", ms=6, label=mark)
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    axes.legend()
    return figure
