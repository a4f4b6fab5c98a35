"""The package against published numbers: values.toml says which, how near, where they stand and why so near."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maury.assess.calibration import galgano2020_error_model
from maury.assess.mdwarf import mann2015_radius
from maury.emulate.polynomial import PolynomialTerms

VALUES = tomllib.loads((Path(__file__).parent / "values.toml").read_text(encoding="utf-8"))["value"]


def galgano_sigma(label: str, variant: Any, snr_sum: list[float]) -> Any:
    model = galgano2020_error_model(variant)
    return model.sigma(snr_sum)[:, model.labels.index(label)]


def galgano_minimum(label: str) -> Any:
    model = galgano2020_error_model("as_published")
    return model.sigma(np.linspace(50.0, 400.0, 35_001))[:, model.labels.index(label)].min(keepdims=True)


COMPUTE: dict[str, Callable[..., Any]] = {
    "galgano2020.sigma": galgano_sigma,
    "galgano2020.minimum_of_sigma": galgano_minimum,
    "mann2015.radius": mann2015_radius,
    "cannon.n_terms": lambda n_labels: [len(PolynomialTerms.of_order(k).powers) for k in n_labels],
}


@pytest.mark.parametrize(
    "entry", VALUES, ids=lambda entry: f"{entry['quantity']}:{'-'.join(map(str, entry['at'].values()))}"[:80]
)
def test_published_value(entry: dict[str, Any]) -> None:
    got = np.asarray(COMPUTE[entry["quantity"]](**entry["at"]), dtype=float)
    np.testing.assert_allclose(got, entry["value"], rtol=0.0, atol=entry["tolerance"] + 1e-12, err_msg=entry["reason"])


def test_every_entry_says_source_and_reason() -> None:
    for entry in VALUES:
        assert set(entry) == {"quantity", "at", "value", "tolerance", "source", "reason"}
        assert len(entry["source"]) > 10
        assert len(entry["reason"]) > 10


def test_mann_radius_means_nothing_outside_its_stars() -> None:
    assert np.isnan(mann2015_radius([2600.0, 4200.0, np.nan])).all()
