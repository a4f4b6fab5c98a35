"""Velocities of real LAMOST spectra against LASP's, and of repeated visits against one another."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.prepare import Mask
from maury.prepare.velocity import CrossCorrelator, Velocities
from maury.read import read_files
from maury.spectra import Spectra

KINDS = (
    (4200.0, 4.6, -0.1),
    (5000.0, 2.7, -0.2),
    (5000.0, 4.5, -0.1),
    (5750.0, 4.3, -0.1),
    (6400.0, 4.1, -0.2),
    (8000.0, 4.0, -0.2),
)
MASK = Mask(presets=("sky_lines", "telluric_oxygen", "telluric_water"))


@pytest.fixture(scope="module")
def correlator(data: Path) -> CrossCorrelator:
    """Six MILES stars themselves, each the nearest to one kind: no model needs to be trained for this."""
    labels = Table.read(data / "miles/labels.csv")
    columns = [np.ma.filled(np.ma.asarray(labels[name], dtype=float), np.inf) for name in ("teff_K", "logg_dex", "fe_h_dex")]
    files = []
    for kind in KINDS:
        away = [(column - value) / width for column, value, width in zip(columns, kind, (100.0, 0.2, 0.15), strict=True)]
        files.append(data / "miles/spectra" / str(labels["file"][int(np.argmin(np.hypot(np.hypot(*away[:2]), away[2])))]))
    return CrossCorrelator(tuple(read_files(files).spectra))


def measured(correlator: CrossCorrelator, spectra: list[Spectra]) -> Velocities:
    return Velocities.concatenate([correlator.measure(MASK(batch)) for batch in spectra])


def spread(values: np.ndarray) -> float:
    return float(ROBUST_SIGMA_PER_MAD * np.median(np.abs(values - np.median(values))))


def test_lamost_against_lasp(data: Path, correlator: CrossCorrelator) -> None:
    labels = Table.read(data / "lamost_dr1/labels.csv")
    labels = labels[~np.ma.getmaskarray(labels["rv"])]
    result = read_files([data / "lamost_dr1/spectra" / str(file) for file in labels["file"]])
    assert not result.failures
    found = measured(correlator, result.spectra)
    good = np.isfinite(found.rv)
    assert good.mean() > 0.95
    difference = (found.rv - np.array(labels["rv"]))[good]
    # bias and scatter of LASP (errors 10-20 km/s) and of two zero points; 5 and 8 km/s were measured with a model's templates
    assert abs(np.median(difference)) < 12
    assert spread(difference) < 14
    # together with LASP's errors ours explain the differences
    assert spread(difference / np.hypot(found.e_rv[good], np.array(labels["rv_err"])[good])) < 1.1


def test_lamost_repeats_agree_to_the_calibration(data: Path, correlator: CrossCorrelator) -> None:
    groups = Table.read(data / "lamost_repeats/groups.csv")
    result = read_files([data / "lamost_repeats/spectra" / str(file) for file in groups["file"]])
    found = measured(correlator, result.spectra)
    pairs = [
        (found.rv[a] - found.rv[b]) / np.sqrt(found.e_rv[a] ** 2 + found.e_rv[b] ** 2 + 2 * 5.0**2)
        for a in range(len(groups))
        for b in range(a)
        if groups["group"][a] == groups["group"][b]
    ]
    # 5 km/s from night to night are LAMOST's wavelength calibration: measured on all 96 pairs (see the docs), more than formal
    assert len(pairs) > 30
    assert 0.6 < ROBUST_SIGMA_PER_MAD * np.median(np.abs(pairs)) < 1.4


def test_the_example_prints_its_table(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = Table.read(data / "lamost_dr1/labels.csv")
    known = labels[~np.ma.getmaskarray(labels["rv"])]
    rows = Table({"file": known["file"], "rv": np.array(known["rv"]) + 3.0, "e_rv": 1.0 + 0 * np.array(known["rv"])})
    rows["flag"], rows["snr"] = 0, 20.0
    rows.write(tmp_path / "v.csv")
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    try:
        import lamost_velocities

        lamost_velocities.main(str(tmp_path / "v.csv"), str(data / "lamost_dr1/labels.csv"))
    finally:
        sys.path.pop(0)
    last = capsys.readouterr().out.splitlines()[-2].split()
    assert last[1:4] == [str(len(known)), "3.00", "0.00"]
