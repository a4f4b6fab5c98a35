"""The figure of a training set's label coverage."""

from __future__ import annotations

import numpy as np
import pytest

from maury.errors import UsageError
from maury.labels import LabelSet, make_label
from maury.report.coverage_figure import coverage_figure, neighbour_distance


class TestCoverage:
    LABELS = LabelSet.from_training(
        [make_label("teff", "K"), make_label("logg", "dex"), make_label("fe_h", "dex")], np.diag([1.0, 1.0, 1.0]) + 1.0
    )

    def stars(self) -> np.ndarray:
        """A dense cloud, and one star of its own."""
        rng = np.random.default_rng(3)
        cloud = np.array([5000.0, 4.0, 0.0]) + rng.normal(0, [300, 0.3, 0.2], (60, 3))
        return np.vstack([cloud, [[12_000.0, 4.0, 0.0]]])

    def test_distance_to_the_neighbour_in_closed_form(self) -> None:
        line = LabelSet((make_label("teff", "K"),), (0.0,), (1000.0,), (0.0,), (1.0,))
        np.testing.assert_allclose(neighbour_distance(line, [[0.0], [1000.0], [3000.0]], k=1), [1, 1, 2])
        np.testing.assert_allclose(neighbour_distance(line, [[0.0], [1000.0], [3000.0]], k=2), [3, 2, 3])

    def test_the_lonely_star_alone_is_ringed_and_teff_runs_leftward(self) -> None:
        figure = coverage_figure(self.LABELS, self.stars(), ["cloud"] * 60 + ["hot"], limit=3.0)
        kiel, metals = figure.axes
        assert kiel.xaxis_inverted()
        assert kiel.yaxis_inverted()
        assert not metals.yaxis_inverted()
        ring = kiel.collections[-1]
        np.testing.assert_allclose(ring.get_offsets(), [[12_000.0, 4.0]])
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert words == ["cloud (60)", "hot (1)", "thin: neighbour 5 is farther than 3 in these labels, scaled (1)"]

    def test_a_few_stars_are_thin_everywhere(self) -> None:
        figure = coverage_figure(self.LABELS, self.stars()[:4])
        assert len(figure.axes[0].collections[-1].get_offsets()) == 4

    def test_what_cannot_be_drawn_is_said(self) -> None:
        mass = LabelSet((make_label("mass", "Msun"),), (0.0,), (1.0,), (0.0,), (1.0,))
        with pytest.raises(UsageError, match="a label teff for the coverage of a training set, got mass"):
            coverage_figure(mass, np.ones((3, 1)))
        with pytest.raises(UsageError, match="more than 5 stars for the distance to neighbour 5, got 3"):
            neighbour_distance(mass, np.ones((3, 1)))
