"""Spectra from labels, many at once, of the sizes of Gebran (2024): ``python -m benchmarks.bench_generate``.

4000 pixels of networks with random weights of the right shapes: the published generator (label network and decoder joined, 15.9
million parameters) and a small one of 120 principal components. ``generate_flux`` in float32 on two cores and on one stands
against ``predict_flux`` in float64 on one; both treat the same labels in the same run, and agreement is that of their flux.

For scale, from the paper (sect. 3.1), not measured here: its generator took about 9 ms a spectrum, SYNSPEC about 3 minutes.
"""

from __future__ import annotations

import numpy as np

from benchmarks.side_by_side import Row, compared, print_rows
from maury.emulate import GeneratorConfig, PayneEmulator, generate_flux
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance

N_PIXELS = 4000
LABELS = ("teff", "logg", "vsini", "m_h", "v_micro", "resolving_power")
AIM_MS = 0.05
TOLERANCE = 1e-5  # of the flux: sums of hundreds of float32 products


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread, agreement, ours_ms, peer_ms (per spectrum)."""
    paper = GeneratorConfig()
    decoder = (paper.autoencoder.latent, *paper.autoencoder.hidden[::-1])
    published = random_network((*paper.label_network.hidden, *decoder), "relu")
    small = random_network((256, 256, 120), "silu")
    rows = []
    for workers in (2, 1):
        rows.append(generation("spectra, 256-256, 120 comp.", small, 8192, workers, AIM_MS))
        rows.append(generation("spectra, Gebran 2024's size", published, 512, workers, None))
    return rows


def random_network(sizes: tuple[int, ...], activation: str) -> PayneEmulator:
    """6 labels -> hidden layers -> pixels whose flux varies by some tenths; the last of ``sizes`` are the basis' vectors.

    He's initial weights keep the spread of the numbers from layer to layer.
    """
    random = np.random.default_rng(24)
    box = np.array([np.zeros(len(LABELS)), np.ones(len(LABELS))])
    labels = LabelSet.from_training(tuple(Label(name, "") for name in LABELS), box).scaled_to_range()
    layers = []
    for n_in, n_out in zip((len(LABELS), *sizes[:-1]), sizes, strict=True):
        layers.append((random.standard_normal((1, n_in, n_out)) * np.sqrt(2.0 / n_in), np.zeros((1, n_out))))
    if activation == "relu":  # the published decoder's last hidden layer has its activation: the basis is the weights behind it
        layers.append((np.eye(sizes[-1])[None], np.zeros((1, sizes[-1]))))
    basis = 0.2 * random.standard_normal((sizes[-1], N_PIXELS)) / np.sqrt(sizes[-1])
    wavelength = 8400.0 + 0.1 * np.arange(N_PIXELS)
    unknown = ModelCovariance(np.zeros(N_PIXELS))
    return PayneEmulator(labels, wavelength, tuple(layers), activation, np.ones(N_PIXELS), basis, unknown)


def generation(name: str, emulator: PayneEmulator, n: int, workers: int, aim_ms: float | None) -> Row:
    """``n`` spectra in one call."""
    values = np.random.default_rng(25).random((n, len(LABELS)))
    largest = float(np.abs(generate_flux(emulator, values, workers) - emulator.predict_flux(values)).max())
    agreement = f"{'agreed' if largest < TOLERANCE else 'NOT AGREED'}: flux within {largest:.0e}"
    row = compared(
        f"{name}, {workers} core{'s' * (workers > 1)}",
        "float64, 1 core",
        lambda: generate_flux(emulator, values, workers),
        lambda: emulator.predict_flux(values),
        agreement,
        counts=(n, n),
    )
    if aim_ms is not None:
        row["agreement"] += f"; {'aim reached' if row['ours_ms'] <= aim_ms else 'aim MISSED'}: {aim_ms} ms"
    return row


def main() -> None:
    """Print the table."""
    print_rows(run())


if __name__ == "__main__":
    main()
