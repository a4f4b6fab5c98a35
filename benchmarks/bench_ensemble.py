"""Labels of spectra by an ensemble of 50 convolutional networks on 512 pixels: ``python -m benchmarks.bench_ensemble``.

Networks of random weights of the right shapes. ``EnsembleInferrer.infer`` (numpy, votes counted, mode and interval included) on
two cores and on one stands against PyTorch's own convolutions one network after another on as many threads, without counting;
both treat the same spectra in the same run, and agreement is that of the votes. The aim: 10,000 spectra a second with 50 members.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.side_by_side import Row, compared, print_rows
from maury.labels import LabelSet, make_label
from maury.networks.cnn1d import StackedCnn1d
from maury.networks.topology import PRESETS
from maury.regress import EnsembleInferrer
from maury.regress.cnn import CnnNetworks, Inputs
from maury.spectra import Spectra

N_PIXELS, N_MEMBERS = 512, 50
AIM_PER_SECOND = 10_000
TOLERANCE = 1e-5  # of the label's range: float32


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread, agreement, ours_ms, peer_ms (per spectrum)."""
    cases = [("fast", 2048, 2), ("fast", 2048, 1), ("small", 1024, 2)]
    return [ensemble(name, n, workers) for name, n, workers in cases]


def ensemble(name: str, n: int, workers: int) -> Row:
    """``n`` spectra in one call."""
    network = StackedCnn1d(N_MEMBERS, PRESETS[name], N_PIXELS, 1, torch.Generator().manual_seed(26)).eval()
    label_set = LabelSet.from_training([make_label("teff", "K")], np.array([[3500.0], [5000.0]])).scaled_to_range()
    inputs = Inputs(8799.6 + 0.07 * np.arange(N_PIXELS), np.ones(N_PIXELS, np.float32), 0.1)
    networks = CnnNetworks(label_set, inputs, PRESETS[name], network.numpy_layers())
    inferrer = EnsembleInferrer(label_set, inputs.wavelength, (networks,), (tuple(map(str, range(N_MEMBERS))),), workers=workers)
    flux = (1.0 + 0.1 * np.random.default_rng(27).standard_normal((n, N_PIXELS))).astype(np.float32)
    ones = np.ones(flux.shape, np.float32)
    spectra = Spectra.from_arrays(inputs.wavelength, flux, ivar=ones, medium="vacuum", frame="rest")
    x = torch.from_numpy(inputs(flux, ones > 0))
    alone = [_one(network, member, name) for member in range(N_MEMBERS)]

    def theirs() -> np.ndarray:
        torch.set_num_threads(workers)
        with torch.no_grad():
            return torch.cat([one(x)[0] for one in alone], dim=1).numpy()

    ours = label_set.scale(inferrer.votes(spectra).values[0].reshape(-1, 1)).reshape(n, N_MEMBERS)
    largest = float(np.abs(ours - theirs()).max())
    agreement = f"votes differ by {largest:.1e} of the range, limit {TOLERANCE:g}"
    row = compared(
        f"{N_MEMBERS} x {name}, {N_PIXELS} px, {workers} core{'s' if workers > 1 else ''}",
        "torch, one by one",
        lambda: inferrer.infer(spectra),
        theirs,
        agreement + ("" if largest < TOLERANCE else ": DISAGREES"),
        counts=(n, n),
    )
    aim = f" (aim {AIM_PER_SECOND:,})" if (name, workers) == ("fast", 2) else ""
    row["agreement"] += f"; {1e3 / row['ours_ms']:,.0f} spectra/s{aim}"
    return row


def _one(stack: StackedCnn1d, member: int, name: str) -> StackedCnn1d:
    """A single network of a stack."""
    one = StackedCnn1d(1, PRESETS[name], N_PIXELS, 1, torch.Generator()).eval()
    rows = {key: value[member : member + 1].clone() for key, value in stack.state_dict().items()}
    one.load_state_dict(rows)
    return one


if __name__ == "__main__":
    print_rows(run())
