"""`maury.grids.download` against an archive on 127.0.0.1 that is laid out, and fails, as real ones do."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, Fault, serving

from maury.errors import MauryError, UsageError
from maury.grids import open_grid
from maury.grids.archive import FetchError, Patience
from maury.grids.download import DownloadResult, download_phoenix
from maury.grids.download_plan import DownloadPlan, plan_phoenix
from maury.grids.phoenix import WAVE_PATH, PhoenixNode
from maury.grids.work_folder import work_folder

N_PIXELS = 60_000  # 240 kB per spectrum: four of the pieces in which files are read
START, STEP = 8000.0, 0.02  # Å: 8000 to 9199.98
KEPT = (8390.0, 8850.0)
N_KEPT = 23_001  # both ends are pixels
QUICK = Patience(attempts=3, first_wait=0.01, longest_wait=0.02, timeout=5.0)
ABSENT = "lte04100-5.00+0.5"
RANGES = {"teff": (4000, 4200), "logg": (4.5, 5), "m_h": (0, 0.5), "wavelength": KEPT}


def make_plan(archive: str = "http://127.0.0.1:9") -> DownloadPlan:
    return plan_phoenix(**RANGES, archive=archive)


def write_image(path: Path, values: np.ndarray) -> None:
    from astropy.io import fits

    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(values).writeto(path)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 12 nodes less one that was never computed."""
    folder = tmp_path_factory.mktemp("archive")
    wavelength = START + STEP * np.arange(N_PIXELS)
    write_image(folder / WAVE_PATH, wavelength)
    for number, node in enumerate(make_plan().nodes):
        if ABSENT not in node.path:
            write_image(folder / node.path, (1e15 * (1 + 0.1 * np.sin(wavelength / (number + 2)))).astype(np.float32))
    return folder


def tree(path: Path) -> dict[str, bytes]:
    """All files of a store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def check_content(output: Path, library: Path, plan: DownloadPlan) -> None:
    """Each spectrum is, bit for bit, the cut of its original, whose size and hash are recorded; nothing else is in the grid."""
    from astropy.io import fits

    grid = open_grid(output)
    everywhere = fits.getdata(library / WAVE_PATH)
    kept = (everywhere >= KEPT[0]) & (everywhere <= KEPT[1])
    assert grid.wavelength.tobytes() == everywhere[kept].astype(np.float64).tobytes()
    assert abs(grid.n_pixels - N_KEPT) <= 2  # the ends are pixels but for the last bit
    nodes = [node for node in plan.nodes if ABSENT not in node.path]
    assert [PhoenixNode(*values) for values in grid.values.tolist()] == nodes
    for node, flux in zip(nodes, grid.flux(), strict=True):
        original = library / node.path
        assert flux.tobytes() == fits.getdata(original)[kept].astype(np.float32).tobytes()
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        assert grid.provenance["originals"][node.path] == {"size": original.stat().st_size, "sha256": digest}
    assert [Path(name).name[:17] for name in grid.provenance["holes"]] == [ABSENT]


def run(server: ArchiveServer, output: Path, **options: object) -> DownloadResult:
    return download_phoenix(make_plan(server.address), output, patience=QUICK, **options)  # type: ignore[arg-type]


def test_the_plan_holds_the_nodes_of_the_library() -> None:
    """The command of the documentation: 23 Teff x 4 log g x 4 [M/H] (Husser et al. 2013: steps 100 K, 0.5, 0.5)."""
    plan = plan_phoenix(teff=(2300, 4500), logg=(4, 5.5), m_h=(-1, 0.5), wavelength=KEPT)
    assert len(plan.nodes) == 23 * 4 * 4
    hot = plan_phoenix(teff=(6900, 7400), logg=(4, 4), m_h=(-3.5, -1.5), alpha_m=(-0.2, 0.2), wavelength=KEPT)
    assert sorted({node.teff for node in hot.nodes}) == [6900, 7000, 7200, 7400]
    assert sorted({node.m_h for node in hot.nodes}) == [-3, -2, -1.5]
    assert sorted({node.alpha_m for node in hot.nodes}) == [-0.2, 0, 0.2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"teff": (4500, 2300)}, r"expected --teff LOW HIGH with LOW <= HIGH, got 4500 2300; swap"),
        (
            {"teff": (4510, 4590)},
            r"expected --teff to hold a node of the library .*, got 4510 to 4590; the nearest are 4500 and 4600",
        ),
        ({"logg": (7, 8)}, r"expected --logg to hold a node of the library \(0 to 6\), got 7 to 8; the nearest are 5.5 and 6"),
        ({"m_h": (0.1, 0.4)}, r"expected --mh .*nearest are 0 and 0.5"),
        ({"wavelength": (8850, 8390)}, r"expected --wavelength LOW HIGH .*got 8850 8390"),
        ({"teff": (float("nan"), 4500)}, r"expected --teff LOW HIGH .*got nan 4500"),
        ({"archive": "ftp://somewhere/"}, r"expected an archive as http\(s\)://host/folder"),
    ],
)
def test_ranges_that_cannot_be_right(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan_phoenix(**(RANGES | change))  # type: ignore[arg-type]


def test_a_whole_run_brings_the_pixels_of_the_originals(library: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    with serving(ArchiveServer(library)) as server:
        result = run(server, tmp_path / "g.zarr", progress=lambda *numbers: told.append(numbers))
        asked = [path.lstrip("/") for path, _ in server.gets()]
        plan = make_plan(server.address)
    assert sorted(asked) == sorted([WAVE_PATH, *(node.path for node in plan.nodes)])  # each once, and nothing else
    assert (result.n_spectra, result.n_kept) == (11, 0)
    assert [(Path(hole.file).name[:17], hole.reason) for hole in result.holes] == [(ABSENT, "not in the archive")]
    assert told[-1] == (12, 12, sum(file.stat().st_size for file in library.rglob("*.fits")))
    check_content(tmp_path / "g.zarr", library, plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.zarr"]  # neither originals nor a work folder stay


def test_faults_of_server_and_line_leave_no_trace(library: Path, tmp_path: Path) -> None:
    """A cut connection, a server error, a file that is damaged on one way: the same grid as without them."""
    faults = {
        "lte04000-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits": [Fault(cut=90_000)],
        "lte04100-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits": [Fault(state=500), Fault(state=503)],
        "lte04200-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits": [Fault(short=100_000)],
        WAVE_PATH: [Fault(cut=1000)],
    }
    with serving(ArchiveServer(library)) as server:
        run(server, tmp_path / "plain.zarr")
        server.faults = faults
        result = run(server, tmp_path / "g.zarr")
        assert not any(server.faults.values())  # all of them happened
        assert len(server.gets("lte04200-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits")) == 3
    assert result.n_spectra == 11
    assert tree(tmp_path / "g.zarr") == tree(tmp_path / "plain.zarr")


def test_a_file_that_is_truncated_in_the_archive_is_a_hole_until_it_is_mended(library: Path, tmp_path: Path) -> None:
    """The server states the length that it sends: only the FITS header tells. Twice the same bytes is enough to know."""
    mended = tmp_path / "archive"
    shutil.copytree(library, mended)
    plan = make_plan()
    broken = mended / plan.nodes[0].path
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200_000])
    with serving(ArchiveServer(mended)) as server:
        result = run(server, tmp_path / "g.zarr")
        assert len(server.gets(broken.name)) == 2
        assert [hole.file for hole in result.holes if hole.again] == [broken.name]
        assert result.holes[0].reason.startswith("damaged in the archive: ")
        broken.write_bytes(whole)
        server.asked.clear()
        again = run(server, tmp_path / "g.zarr")
        assert sorted(Path(path).name[:17] for path, _ in server.gets()) == ["lte04000-4.50-0.0", ABSENT]  # and no other
        run(server, tmp_path / "plain.zarr")
    assert (again.n_spectra, again.n_kept) == (11, 10)
    assert tree(tmp_path / "g.zarr") == tree(tmp_path / "plain.zarr")


KILLED = """
import sys
from pathlib import Path
from maury.grids.archive import Patience
from maury.grids.download import download_phoenix
from maury.grids.download_plan import plan_phoenix
plan = plan_phoenix(teff=(4000, 4200), logg=(4.5, 5), m_h=(0, 0.5), wavelength=(8390, 8850), archive=sys.argv[1])
download_phoenix(plan, Path(sys.argv[2]), jobs=2, patience=Patience(timeout=5.0))
"""


def test_killed_and_started_again_gives_the_same_grid(library: Path, tmp_path: Path) -> None:
    """SIGKILL after so many requests, mid-file (each takes 0.16 s): files that are done are not fetched again, parts go on."""
    output = tmp_path / "g.zarr"
    with serving(ArchiveServer(library)) as server:
        run(server, tmp_path / "plain.zarr")
        server.delay = 0.04
        for after in (1, 3, 6):
            server.asked.clear()
            process = subprocess.Popen([sys.executable, "-c", KILLED, server.address, str(output)])
            while sum(path.endswith("HiRes.fits") for _, path, _ in server.asked) < after:
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(0.07)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert not output.exists()
        server.delay, rows = 0.0, len(list((tmp_path / "g.zarr.download" / "rows").iterdir()))
        server.asked.clear()
        result = run(server, output)
        spans = [span for path, span in server.gets() if span]
    assert result.n_kept == rows > 0
    assert spans, "no part went on where it was cut"
    assert len(server.asked) == 12 - rows  # the wavelengths were kept too
    assert tree(output) == tree(tmp_path / "plain.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.zarr", "plain.zarr"]


def test_stopped_by_the_user_ends_soon_and_goes_on_later(library: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, n_bytes: int) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    with serving(ArchiveServer(library, delay=0.01)) as server:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run(server, tmp_path / "g.zarr", progress=interrupt)
        assert time.monotonic() - started < 5.0
        assert run(server, tmp_path / "g.zarr").n_kept >= 3


def test_an_archive_that_breaks_down_stops_the_run(library: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(library, {"HiRes.fits": [Fault()] * 2 + [Fault(state=503)] * 1000})) as server:
        with pytest.raises(FetchError, match=r"HTTP state 503 .*; 8 files in a row failed: start again to go on from here"):
            run(server, tmp_path / "g.zarr", jobs=1)
        assert not (tmp_path / "g.zarr").exists()
        server.faults.clear()
        assert run(server, tmp_path / "g.zarr").n_kept == 2


def test_originals_are_kept_when_asked_and_used_again(library: Path, tmp_path: Path) -> None:
    keep = tmp_path / "originals"
    with serving(ArchiveServer(library)) as server:
        run(server, tmp_path / "g.zarr", keep=keep)
        assert tree(keep) == tree(library)
        server.asked.clear()
        other = replace(make_plan(server.address), wavelength=(8500.0, 8600.0))
        result = download_phoenix(other, tmp_path / "h.zarr", keep=keep, patience=QUICK)
        assert [Path(path).name[:17] for path, _ in server.gets()] == [ABSENT]
    assert (result.n_spectra, result.n_bytes) == (11, 0)


def test_the_same_grid_is_not_fetched_twice_and_another_is_not_overwritten(library: Path, tmp_path: Path) -> None:
    output = tmp_path / "g.zarr"
    with serving(ArchiveServer(library)) as server:
        run(server, output)
        before = tree(output)
        server.asked.clear()
        result = run(server, output)
        assert (result.n_spectra, result.n_bytes, len(result.holes), server.asked) == (11, 0, 1, [])
        other = replace(make_plan(server.address), wavelength=(8500.0, 8600.0))
        with pytest.raises(UsageError, match=r"expected a new output, got .*g\.zarr, which is another grid; name another one or"):
            download_phoenix(other, output, patience=QUICK)
        assert tree(output) == before
        assert download_phoenix(other, output, overwrite=True, patience=QUICK).n_spectra == 11
    assert tree(output) != before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "."])
def test_what_is_no_grid_is_never_overwritten(tmp_path: Path, overwrite: bool, name: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="which is no grid of this program; name another one"):
        download_phoenix(make_plan(), tmp_path / name, patience=QUICK, overwrite=overwrite)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_work_folder_of_another_request_is_not_mixed_in(library: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(library, {"HiRes.fits": [Fault()] * 2 + [Fault(state=503)] * 1000})) as server:
        with pytest.raises(FetchError):
            run(server, tmp_path / "g.zarr", jobs=1)
        other = replace(make_plan(server.address), wavelength=(8500.0, 8600.0))
        with pytest.raises(UsageError, match=r"g\.zarr\.download .*of another wavelength \(\[8390\.0, 8850\.0\]\)"):
            download_phoenix(other, tmp_path / "g.zarr", patience=QUICK)


def test_rows_of_an_unknown_request_are_not_mixed_in(library: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(library, {"HiRes.fits": [Fault()] * 2 + [Fault(state=503)] * 1000})) as server:
        with pytest.raises(FetchError):
            run(server, tmp_path / "g.zarr", jobs=1)
        (tmp_path / "g.zarr.download" / "request.json").unlink()
        with pytest.raises(UsageError, match=r"g\.zarr\.download to belong to this download, got one of another form"):
            run(server, tmp_path / "g.zarr")


def test_a_folder_of_the_user_in_the_place_of_the_work_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "g.zarr.download").mkdir()
    (tmp_path / "g.zarr.download" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"g\.zarr\.download to be free .*, got a folder with 'notes\.txt' in it; move it or"):
        download_phoenix(make_plan(), tmp_path / "g.zarr", patience=QUICK)
    assert [path.name for path in tmp_path.rglob("*")] == ["g.zarr.download", "notes.txt"]


def test_the_lock_of_a_work_folder_is_held_to_its_end(tmp_path: Path) -> None:
    """A second download that came while the first one's folder goes would lose what it has begun."""
    with work_folder(tmp_path / "g.zarr", {"a": 1}) as work:
        (work.path / "rows" / "row.npz").write_bytes(b"")
        work.remove()
        assert sorted(path.name for path in work.path.iterdir()) == ["lock", "request.json"]
    assert not list(tmp_path.iterdir())


def test_two_downloads_to_one_output_do_not_meet(library: Path, tmp_path: Path) -> None:
    def second(*_: int) -> None:
        with pytest.raises(UsageError, match="got another download at work in it; wait for its end"):
            run(server, tmp_path / "g.zarr")

    with serving(ArchiveServer(library)) as server:
        assert run(server, tmp_path / "g.zarr", jobs=1, progress=second).n_spectra == 11


def test_nothing_in_the_wavelength_range(library: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(library)) as server:
        plan = replace(make_plan(server.address), wavelength=(5000.0, 6000.0))
        with pytest.raises(UsageError, match=r"expected --wavelength within 8000 to 9199\.98 Å, .*got 5000 to 6000; change it"):
            download_phoenix(plan, tmp_path / "g.zarr", patience=QUICK)


@pytest.mark.parametrize("address", ["{}/HiResFITS", "http://127.0.0.1:9"], ids=["a folder too deep", "nobody there"])
def test_a_wrong_address_is_one_sentence(library: Path, tmp_path: Path, address: str) -> None:
    with serving(ArchiveServer(library)) as server:
        plan = replace(make_plan(), archive=address.format(server.address))
        with pytest.raises(MauryError, match=r"expected http://127\.0\.0\.1:\d+/.*WAVE.*, got .*--archive"):
            download_phoenix(plan, tmp_path / "g.zarr", patience=QUICK)
    assert not list(tmp_path.iterdir())  # nor an empty work folder


def test_no_node_has_a_spectrum(library: Path, tmp_path: Path) -> None:
    with serving(ArchiveServer(library)) as server:
        plan = plan_phoenix(**(RANGES | {"teff": (9000, 9200)}), archive=server.address)
        with pytest.raises(UsageError, match=r"expected spectra of 8 nodes in http.*, got none .*: not in the archive\); check"):
            download_phoenix(plan, tmp_path / "g.zarr", patience=QUICK)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(library: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"expected to write .*Permission denied; check space and permissions"):
        download_phoenix(make_plan(), tmp_path / "g.zarr", patience=QUICK)


@pytest.mark.parametrize("is_there", [False, True])
def test_without_zarr_nothing_is_fetched(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    """The sentence comes before thousands of files, not after them."""
    with serving(ArchiveServer(library)) as server:
        if is_there:
            run(server, tmp_path / "g.zarr")
            server.asked.clear()
        monkeypatch.setitem(sys.modules, "zarr", None)
        with pytest.raises(UsageError, match=r"expected zarr to be installed .*, got none; run pip install 'maury\[grids\]'"):
            run(server, tmp_path / "g.zarr")
        assert not server.asked


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"expected an existing folder for .*file/g\.zarr, got none; make the folder first"):
        download_phoenix(make_plan(), tmp_path / "file" / "g.zarr", patience=QUICK)
