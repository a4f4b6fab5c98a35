"""Rows of a batch, and batches put together: nothing is lost on the way, nothing is copied without need."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table, vstack

from maury.errors import UsageError
from maury.spectra import Spectra, stack_tables


def _spectra(n: int, first: int = 0, **columns: object) -> Spectra:
    rng = np.random.default_rng(first)
    meta = Table({"file": [f"star{first + i}.fits" for i in range(n)], "snr": rng.random(n), **columns})
    return Spectra.from_arrays(
        np.arange(5000.0, 5020.0),
        rng.normal(size=(n, 20)),
        ivar=np.ones((n, 20)),
        medium="air",
        frame="rest",
        ids=[f"id{first + i}" for i in range(n)],
        meta=meta,
        mask=np.full((n, 20), first, np.uint32),
    )


@pytest.mark.parametrize(
    "rows", [slice(2, 5), slice(None), slice(None, None, -1), [4, 1, 1], np.array([2, 3, 4]), np.arange(6) % 2 == 0, [-1], []]
)
def test_rows_are_taken_as_numpy_takes_them(rows: object) -> None:
    spectra = _spectra(6)
    part = spectra[rows]  # type: ignore[index]
    index = np.array(rows, dtype=int) if isinstance(rows, list) else rows
    for name in ("flux", "ivar", "ids", "mask"):
        np.testing.assert_array_equal(getattr(part, name), getattr(spectra, name)[index])
        assert not getattr(part, name).flags.writeable
    assert list(part.meta["file"]) == list(np.array(spectra.meta["file"])[index])
    assert spectra.flux.shape == (6, 20)


def test_neighbouring_rows_are_views() -> None:
    spectra = _spectra(6)
    assert spectra[np.arange(6)] is spectra
    assert np.shares_memory(spectra[[2, 3, 4]].flux, spectra.flux)
    with pytest.raises(UsageError, match="boolean index of 6 rows"):
        spectra[np.ones(5, dtype=bool)]
    with pytest.raises(IndexError):
        spectra[[6]]


def test_a_stack_is_what_astropy_makes_of_the_tables() -> None:
    parts = [_spectra(2), _spectra(1, 100), _spectra(3, 1000)]  # file names of growing width
    whole = Spectra.stack(parts)
    expected = vstack([p.meta for p in parts])
    assert list(whole.meta["file"]) == list(expected["file"])
    assert whole.meta.colnames == expected.colnames
    np.testing.assert_array_equal(whole.flux, np.concatenate([p.flux for p in parts]))
    assert whole.mask is not None
    assert whole.mask[:, 0].tolist() == [0, 0, 100, 1000, 1000, 1000]
    assert whole.ids.tolist()[-1] == "id1002"


def test_masked_columns_units_and_table_meta_are_kept() -> None:
    def table(values: list[float], mask: list[bool], note: str) -> Table:
        made = Table({"rv": MaskedColumn(values, mask=mask, unit="km/s", description="radial velocity")})
        made.meta["note"] = note
        return made

    joined = stack_tables([table([1.0, 2.0], [False, True], "a"), table([3.0], [True], "b")])
    assert joined["rv"].mask.tolist() == [False, True, True]
    assert (str(joined["rv"].unit), joined["rv"].description, joined.meta["note"]) == ("km / s", "radial velocity", "a")


@pytest.mark.parametrize(
    ("other", "missing"),
    [({"teff": [4000.0]}, {"snr"}), ({"snr": [1]}, set()), ({"snr": ["high"]}, None), ({"snr": [[1.0, 2.0]]}, None)],
)
def test_tables_that_differ_go_astropys_way(other: dict[str, list[object]], missing: set[str] | None) -> None:
    """Columns that some lack are masked; what can not be joined is refused by astropy itself."""
    tables = [Table({"snr": [10.0]}), Table(other)]
    if missing is None:
        with pytest.raises(Exception, match=r"snr|shapes|incompatible"):
            stack_tables(tables)
        return
    joined = stack_tables(tables)
    assert len(joined) == 2
    assert all(np.ma.is_masked(joined[name]) for name in missing)
