"""Model files: round trip, stable ids and bytes, and one clear sentence for each way a file can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from maury.errors import ModelFileError, UsageError
from maury.store import FORMAT_VERSION, model_id_of, read_model_file, write_model_file

HEADER = {"kind": "cannon", "labels": ["teff"], "range": np.array([4000.0, 7000.0]), "provenance": {"date": "2025-01-01"}}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "coefficients": rng.normal(size=(15, 40)),
        "scatter": rng.uniform(size=40).astype(np.float32),
        "used": np.arange(40) % 2 == 0,
        "order": np.arange(6, dtype=np.int64).reshape(2, 3).T,  # not C-ordered
        "big_endian": np.arange(3, dtype=">f8"),
        "scalar": np.array(3.5),
        "nothing": np.zeros((0, 4)),
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_model_file(path, arrays(), HEADER)
    return path


def rewrite(path: Path, change: Any, change_arrays: Any = None) -> None:
    """Rewrite the file with a changed header or arrays, hashes left as they were."""
    content = load(path.read_bytes())
    header = json.loads(metadata_of(path)["maury"])
    change(header)
    if change_arrays:
        change_arrays(content)
    path.write_bytes(save(content, metadata={"maury": json.dumps(header)}))


def metadata_of(path: Path) -> dict[str, str]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return dict(json.loads(raw[8 : 8 + length])["__metadata__"])


def test_round_trip(model: Path) -> None:
    got, header = read_model_file(model)
    assert set(got) == set(arrays())
    for name, array in arrays().items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].shape == array.shape
    assert got["scatter"].dtype == np.float32
    assert header["kind"] == "cannon"
    assert header["range"] == [4000.0, 7000.0]
    assert header["format_version"] == FORMAT_VERSION
    assert header["created_by"].startswith("maury ")


def test_the_callers_header_and_arrays_are_left_alone(tmp_path: Path) -> None:
    header, content = dict(HEADER), arrays()
    write_model_file(tmp_path / "m.safetensors", content, header)
    assert set(header) == set(HEADER)
    np.testing.assert_array_equal(content["order"], arrays()["order"])


def test_same_input_gives_same_bytes_and_nothing_is_left_beside(tmp_path: Path, model: Path) -> None:
    other = tmp_path / "other.safetensors"
    write_model_file(other, dict(reversed(arrays().items())), dict(reversed(HEADER.items())))
    assert other.read_bytes() == model.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "other.safetensors"}


def test_id_depends_on_arrays_and_settings_but_not_on_provenance(tmp_path: Path, model: Path) -> None:
    model_id = read_model_file(model)[1]["model_id"]
    assert len(model_id) == 12
    assert model_id_of(arrays(), {**HEADER, "provenance": {"date": "2030-12-31"}}) == model_id
    assert model_id_of(arrays(), {**HEADER, "labels": ["logg"]}) != model_id
    assert model_id_of({**arrays(), "scalar": np.array(3.6)}, HEADER) != model_id
    assert write_model_file(tmp_path / "x.safetensors", arrays(), HEADER) == model_id


def test_no_arrays_at_all(tmp_path: Path) -> None:
    write_model_file(tmp_path / "x.safetensors", {}, {"kind": "empty"})
    assert read_model_file(tmp_path / "x.safetensors")[0] == {}


@pytest.mark.parametrize(
    ("content", "header", "text"),
    [
        ({}, {"labels": []}, "expected a header with the kind of model"),
        ({}, {"kind": "a", "sha256": "0"}, "expected a header without sha256"),
        ({}, {"kind": "a", "limit": float("inf")}, "expected plain, finite JSON values"),
        ({}, {"kind": "a", "function": print}, "a value of type builtin_function_or_method"),
        ({"a": np.array(["text"])}, {"kind": "a"}, "expected real, integer or boolean numbers in array 'a'"),
        ({"a": np.array([object()])}, {"kind": "a"}, "expected real, integer or boolean numbers in array 'a'"),
    ],
)
def test_wrong_usage(tmp_path: Path, content: dict[str, Any], header: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        write_model_file(tmp_path / "x.safetensors", content, header)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="got the folder"):
        write_model_file(tmp_path, {}, {"kind": "a"})
    with pytest.raises(ModelFileError, match="make the folder first"):
        write_model_file(tmp_path / "none" / "x.safetensors", {}, {"kind": "a"})


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"got no file at .*; check the path"):
        read_model_file(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="got the folder"):
        read_model_file(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(ModelFileError, match="got the empty file"):
        read_model_file(tmp_path / "empty")


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.2, 0.01])
def test_truncated(model: Path, kept: float) -> None:
    raw = model.read_bytes()
    model.write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(ModelFileError, match="got the truncated file"):
        read_model_file(model)


@pytest.mark.parametrize("content", [b"x", b"SIMPLE  =  T" * 300, b"\x80\x04\x95pickle" * 9, b"{}", b"\0" * 64, b"\xff" * 64])
def test_other_kinds_of_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="expected a safetensors model file, got another kind of file"):
        read_model_file(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(save({"weight": np.zeros(3)}))
    with pytest.raises(ModelFileError, match="the safetensors file of another program"):
        read_model_file(path)


@pytest.mark.parametrize(
    "text", ["{broken", "[]", '"text"', "{}", '{"format": "maury-model"}', '{"format": "maury-model", "format_version": 1}']
)
def test_broken_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(save({"weight": np.zeros(3)}, metadata={"maury": text}))
    with pytest.raises(ModelFileError, match="got a broken one"):
        read_model_file(path)


def test_newer_format(model: Path) -> None:
    rewrite(model, lambda h: h.update(format_version=FORMAT_VERSION + 1, created_by="maury 9.9"))
    with pytest.raises(ModelFileError, match=r"got format 2 in .* \(written by maury 9.9\); update maury"):
        read_model_file(model)


def test_array_missing_added_or_changed(model: Path) -> None:
    original = model.read_bytes()
    rewrite(model, lambda h: None, lambda a: a.pop("scatter"))
    with pytest.raises(ModelFileError, match="expected the arrays scatter in"):
        read_model_file(model)
    model.write_bytes(original)
    rewrite(model, lambda h: None, lambda a: a.update(more=np.zeros(2)))
    with pytest.raises(ModelFileError, match=r"got others \(more\)"):
        read_model_file(model)
    model.write_bytes(original)
    rewrite(model, lambda h: None, lambda a: a.update(scatter=np.zeros(3)))
    with pytest.raises(ModelFileError, match=r"got others \(scatter\)"):
        read_model_file(model)


def test_changed_numbers_or_settings_are_noticed(model: Path) -> None:
    original = model.read_bytes()
    model.write_bytes(original[:-9] + bytes([original[-9] ^ 1]) + original[-8:])
    with pytest.raises(ModelFileError, match="the file is damaged"):
        read_model_file(model)
    model.write_bytes(original)
    rewrite(model, lambda h: h.update(range=[0.0, 1.0]))
    with pytest.raises(ModelFileError, match="the file is damaged"):
        read_model_file(model)


def test_any_damage_is_a_model_file_error(model: Path) -> None:
    """300 flipped bits or cuts with a fixed seed: refused in a sentence, never another exception."""
    original = model.read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(300):
        raw = bytearray(original)
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.2:
            raw = raw[: rng.integers(len(raw))]
        model.write_bytes(bytes(raw))
        with pytest.raises(ModelFileError):
            read_model_file(model)


def test_reading_does_not_import_torch() -> None:
    code = "import sys, maury.store, safetensors.numpy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
