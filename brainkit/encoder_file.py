"""What an encoder file carries, and reading and writing it safely.

An encoder file is an ONNX model with two more ``metadata_props`` entries at its end: ``brainkit``, a JSON that says
what the model is, and ``brainkit_sha256``, the digest of every byte before that entry. ``docs/encoder-file.md`` is
the format. Reading needs no ONNX package and opens no session: the top-level fields of the file are walked, and the
graph is skipped by its length. Nothing in the file is trusted: every count and length is bounded before it is used.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from brainkit.encoder_container import (
    DIGEST_BYTES,
    DIGEST_KEY,
    MAX_FILE,
    MAX_METADATA,
    METADATA_KEY,
    check_digest,
    digest_of,
    find_metadata,
    metadata_entries,
    metadata_entry,
)
from brainkit.errors import BrainkitError, EncoderFileError
from brainkit.files import write_beside
from brainkit.images import Preprocessing
from brainkit.surface import SPACES, RoiTable, Vertices

FORMAT = "brainkit encoder"
SCHEMA = 1

MAX_ARRAY = 512 << 20  # bytes of one unpacked array
MAX_VERTICES = 4_000_000
MAX_LAYERS = 1024
MAX_ROIS = 4096


_DTYPES = {"u1": "u1", "<i4": "<i4", "<i8": "<i8", "<f2": "<f2", "<f4": "<f4", "<f8": "<f8"}


@dataclass(frozen=True, eq=False)
class EncoderInfo:
    """What an encoder file says about itself; V vertices, L layers.

    Parameters
    ----------
    vertices : Vertices
        Cortical space and vertex ids of the V columns of ``fmri``.
    rois : RoiTable
        Regions as indices into 0..V-1.
    preprocessing : Preprocessing
        How a photograph becomes the model's input.
    layers : tuple of str
        The L layers of the backbone, in the order of `layer_weights` and of ``tokens``.
    layer_weights : array of shape (V, L), float32
        Softmax weights over the layers; stored as float16.
    locations : array of shape (V, 2), float32
        (x right, y down), -1..1 over the image.
    scale : array of shape (V,), float32
        0 = local tokens alone, 1 = the global token alone.
    r, R2 : array of shape (V,), float32
        Correlation and coefficient of determination on the test images; NaN where not known.
    noise_ceiling : array of shape (V,), float32
        Ceiling on r squared, in [0, 1]; NaN where not known.
    grid : tuple of int
        Height and width (H, W) of the token grid; P = H*W. The export sets it from the model.
    bottleneck : int
        D, the number of channels of ``tokens``. The export sets it from the model.
    units : str
        Of the predictions, for example ``"z-scored percent signal change"``.
    gauge : str
        ``"unit"``, or ``"published"``: whether the selectors of different layers can be compared.
    note : str or None
        What must be said wherever the predictions are shown, for example that the subject is simulated.
    licence : str
        The terms that travel with the file.
    backbone : dict
        name, weights_hash, pretrained, licence, source.
    provenance : dict
        data hash, split, seed, versions, config.
    certificate : dict or None
        The parity certificate, written by the export.
    digest : str or None
        SHA-256 of the file it was read from (hex), None before it is written.
    """

    vertices: Vertices
    rois: RoiTable
    preprocessing: Preprocessing
    layers: tuple[str, ...]
    layer_weights: np.ndarray
    locations: np.ndarray
    scale: np.ndarray
    r: np.ndarray
    R2: np.ndarray
    noise_ceiling: np.ndarray
    grid: tuple[int, int] = (8, 8)
    bottleneck: int = 64
    units: str = ""
    gauge: str = "unit"
    note: str | None = None
    licence: str = ""
    backbone: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    certificate: dict[str, Any] | None = None
    digest: str | None = None

    @property
    def selectors(self) -> dict[str, np.ndarray]:
        """``layer_weights`` (V, L), ``locations`` (V, 2) and ``scale`` (V,), float32."""
        return {"layer_weights": self.layer_weights, "locations": self.locations, "scale": self.scale}


def read(path: str | os.PathLike[str]) -> EncoderInfo:
    """Read and check an encoder file, without opening a session.

    Parameters
    ----------
    path : path-like
        The file; at most 2 GB, streamed through once for the digest.

    Returns
    -------
    EncoderInfo
        With `digest` set.

    Raises
    ------
    EncoderFileError
        If it is missing, truncated, damaged, not an encoder file, or of a later schema; one sentence says which.
    """
    text, digest = read_text(path)
    return dataclasses.replace(from_json(text, source=path), digest=digest)


def read_text(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """The JSON of an encoder file as bytes, and the file's digest (hex), which is checked.

    Raises
    ------
    EncoderFileError
        As `read`, for all that comes before the JSON's content.
    """
    source = Path(path)
    try:
        if source.is_dir():
            raise EncoderFileError(f"{source}: expected an encoder file, found a folder")
        if not source.exists():
            raise EncoderFileError(f"{source}: file not found")
        if not source.is_file():
            raise EncoderFileError(f"{source}: expected an encoder file, found something that is not a regular file")
        with source.open("rb") as stream:
            text = find_metadata(stream, source)
            return text, check_digest(stream, source)
    except (OSError, ValueError) as error:
        # A path with a null byte is a ValueError.
        raise EncoderFileError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def write(path: str | os.PathLike[str], model: bytes | str | os.PathLike[str], info: EncoderInfo) -> str:
    """Write an encoder file: the ONNX model, the metadata and the digest, beside and then renamed.

    Parameters
    ----------
    path : path-like
        The new file.
    model : bytes or path-like
        A serialised ONNX model, or a file that holds one; it must not be an encoder file already.
    info : EncoderInfo
        What the file says about itself.

    Returns
    -------
    str
        The digest (hex).
    """
    with write_beside(path) as beside:
        if isinstance(model, bytes):
            beside.write_bytes(model)
        else:
            shutil.copyfile(model, beside)
        return seal(beside, info)


def seal(path: str | os.PathLike[str], info: EncoderInfo) -> str:
    """Append the metadata and the digest to an ONNX file, in place; returns the digest (hex).

    Protobuf allows a message to be extended by appending fields, so the model's own bytes stay as they are.

    Raises
    ------
    EncoderFileError
        If the file is no ONNX model, is sealed already, or would pass 2 GB.
    """
    source = Path(path)
    text = to_json(info).encode("utf-8")
    from_json(text, source=source)  # what is written can be read
    metadata = metadata_entry(METADATA_KEY.encode(), text)
    with source.open("r+b") as stream:
        if metadata_entries(stream, source).keys() & {METADATA_KEY.encode(), DIGEST_KEY.encode()}:
            raise EncoderFileError(f"{source}: is an encoder file already; expected a plain ONNX model")
        size = stream.seek(0, os.SEEK_END)
        if size + len(metadata) + DIGEST_BYTES > MAX_FILE:
            raise EncoderFileError(f"{source}: the encoder file would take over 2 GB, which ONNX files cannot")
        stream.write(metadata)
        stream.flush()
        digest = digest_of(stream, size + len(metadata))
        stream.seek(0, os.SEEK_END)
        stream.write(metadata_entry(DIGEST_KEY.encode(), digest.encode()))
    return digest


# --- the JSON ---------------------------------------------------------------------------------------------------


def to_json(info: EncoderInfo) -> str:
    """The metadata as compact JSON, the same in every container (ONNX, TorchScript, .pt2).

    Raises
    ------
    EncoderFileError
        If a part cannot be said in JSON, such as NaN in the provenance.
    """
    value = {
        "format": FORMAT,
        "schema": SCHEMA,
        "backbone": info.backbone,
        "preprocessing": info.preprocessing.to_json(),
        "layers": list(info.layers),
        "grid": list(info.grid),
        "bottleneck": info.bottleneck,
        "space": info.vertices.space,
        "vertices": pack_array(np.asarray(info.vertices.ids, "<i4")),
        "rois": {name: pack_array(np.asarray(info.rois[name], "<i4")) for name in info.rois},
        "selectors": {
            "layer_weights": pack_array(np.asarray(info.layer_weights, "<f2")),
            "locations": pack_array(np.asarray(info.locations, "<f4")),
            "scale": pack_array(np.asarray(info.scale, "<f4")),
        },
        "scores": {
            "r": pack_array(np.asarray(info.r, "<f4")),
            "R2": pack_array(np.asarray(info.R2, "<f4")),
            "noise_ceiling": pack_array(np.asarray(info.noise_ceiling, "<f4")),
        },
        "units": info.units,
        "gauge": info.gauge,
        "note": info.note,
        "licence": info.licence,
        "provenance": info.provenance,
        "certificate": info.certificate,
    }
    try:
        # ASCII, so that any text survives any reader; sizes in bytes and characters agree.
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise EncoderFileError(f"the encoder's metadata cannot be written as JSON: {error}") from None


def from_json(text: bytes | str, *, source: str | os.PathLike[str]) -> EncoderInfo:
    """Check the JSON of an encoder file and unpack it; `source` is named in errors.

    Raises
    ------
    EncoderFileError
        If anything is missing, of the wrong kind or size, or of a later schema.
    """
    where = f"{source}: the brainkit metadata"
    if len(text) > MAX_METADATA:
        raise EncoderFileError(f"{where} takes {len(text)} bytes; at most {MAX_METADATA} are read")
    value = _parse(text, source, where)
    layers = _layers(value, where)
    grid = value.get("grid")
    if not (isinstance(grid, list) and len(grid) == 2 and all(_is_int(n, 1, 4096) for n in grid)):
        raise EncoderFileError(f"{where}: grid must be two sizes (H, W), found {_short(grid)}")
    if not _is_int(value.get("bottleneck"), 1, 1 << 20):
        raise EncoderFileError(f"{where}: bottleneck must be a count, found {_short(value.get('bottleneck'))}")
    vertices = _vertices(value, where)
    V = len(vertices.ids)

    def floats(section: str, name: str, shape: tuple[int, ...], dtype: str = "<f4") -> np.ndarray:
        packed = _section(value, section, where).get(name)
        array = unpack_array(packed, dtype=dtype, shape=shape, what=f"{where}: {section}.{name}").astype(np.float32)
        if section == "selectors" and not np.isfinite(array).all():
            raise EncoderFileError(f"{where}: {section}.{name} must be finite, found NaN or infinity")
        return array

    return EncoderInfo(
        vertices=vertices,
        rois=_rois(value, V, where),
        preprocessing=_preprocessing(value, where),
        layers=layers,
        grid=(grid[0], grid[1]),
        bottleneck=value["bottleneck"],
        layer_weights=floats("selectors", "layer_weights", (V, len(layers)), "<f2"),
        locations=floats("selectors", "locations", (V, 2)),
        scale=floats("selectors", "scale", (V,)),
        r=floats("scores", "r", (V,)),
        R2=floats("scores", "R2", (V,)),
        noise_ceiling=floats("scores", "noise_ceiling", (V,)),
        units=_text(value, "units", where),
        gauge=_text(value, "gauge", where),
        note=None if value.get("note") is None else _text(value, "note", where),
        licence=_text(value, "licence", where),
        backbone=_section(value, "backbone", where),
        provenance=_section(value, "provenance", where),
        certificate=None if value.get("certificate") is None else _section(value, "certificate", where),
    )


def pack_array(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its dtype, its shape, and base64 of zlib of its little-endian bytes in C order."""
    little = np.asarray(array, order="C")
    little = little.astype(little.dtype.newbyteorder("<"), copy=False)
    dtype = little.dtype.str.replace("|", "")
    if dtype not in _DTYPES:
        raise EncoderFileError(f"an encoder file holds arrays of {', '.join(_DTYPES)}, got {little.dtype}")
    data = base64.b64encode(zlib.compress(little.tobytes(), 6)).decode("ascii")
    return {"dtype": dtype, "shape": list(little.shape), "data": data}


def unpack_array(value: Any, *, dtype: str, shape: tuple[int | None, ...], what: str) -> np.ndarray:
    """Unpack what `pack_array` made, never growing beyond what was expected.

    Parameters
    ----------
    value : object
        As read from the JSON; anything.
    dtype : str
        The expected dtype, for example ``"<f4"``.
    shape : tuple of int or None
        The expected shape; None for a length that may be anything (with the rest, at most 512 MB).
    what : str
        Named in errors.

    Returns
    -------
    array
        In the machine's byte order, its own memory.

    Raises
    ------
    EncoderFileError
        If it is not such an array.
    """
    found = value if isinstance(value, dict) else {}
    stored, lengths, data = found.get("dtype"), found.get("shape"), found.get("data")
    if not isinstance(lengths, list) or not isinstance(data, str):
        raise EncoderFileError(f"{what} must be a packed array (dtype, shape, data), found {_short(value)}")
    if stored != dtype:
        raise EncoderFileError(f"{what} must have dtype {dtype}, found {_short(stored)}")
    fits = len(lengths) == len(shape) and all(
        _is_int(length, 0, MAX_ARRAY) and expected in (None, length)
        for length, expected in zip(lengths, shape, strict=False)
    )
    if not fits:
        expected_text = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise EncoderFileError(f"{what} must have shape {expected_text}, found {_short(lengths)}")
    size = math.prod(lengths) * np.dtype(dtype).itemsize
    if size > MAX_ARRAY:
        raise EncoderFileError(f"{what} takes {size} bytes; at most {MAX_ARRAY} are read")
    try:
        packed = base64.b64decode(data, validate=True)
        stream = zlib.decompressobj()
        # One byte more than expected tells a stream that is too long, without unpacking a bomb.
        raw = stream.decompress(packed, size + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise EncoderFileError(f"{what} is damaged: {error}") from None
    if len(raw) != size or not stream.eof or stream.unused_data:
        raise EncoderFileError(f"{what} must unpack to {size} bytes, found {'more' if len(raw) > size else 'others'}")
    array = np.frombuffer(raw, dtype=dtype).reshape(lengths)
    return array.astype(array.dtype.newbyteorder("="))


def _parse(text: bytes | str, source: str | os.PathLike[str], where: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    def finite(digits: str) -> float:
        number = float(digits)
        return number if math.isfinite(number) else refuse(digits)

    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        value = json.loads(decoded, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else _short(str(error))
        raise EncoderFileError(f"{where} cannot be parsed: {reason}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise EncoderFileError(f"{where} must be a JSON object with format {FORMAT!r}, found {_short(value)}")
    schema = value.get("schema")
    if not isinstance(schema, int) or not _is_int(schema, 1, 1 << 31):
        raise EncoderFileError(f"{where}: schema must be a whole number, found {_short(schema)}")
    if schema > SCHEMA:
        raise EncoderFileError(
            f"{source}: written by a later brainkit (schema {schema}, this one reads up to {SCHEMA}); "
            "upgrade with: pip install -U brainkit"
        )
    return value


def _layers(value: Mapping[str, Any], where: str) -> tuple[str, ...]:
    layers = value.get("layers")
    if not (
        isinstance(layers, list)
        and 1 <= len(layers) <= MAX_LAYERS
        and all(isinstance(name, str) for name in layers)
        and len(set(layers)) == len(layers)
    ):
        raise EncoderFileError(f"{where}: layers must be 1 to {MAX_LAYERS} different names, found {_short(layers)}")
    return tuple(layers)


def _vertices(value: Mapping[str, Any], where: str) -> Vertices:
    space = value.get("space")
    if not isinstance(space, str) or space not in (*SPACES, "custom"):
        known = ", ".join((*SPACES, "custom"))
        raise EncoderFileError(f"{where}: space must be one of {known}, found {_short(space)}")
    ids = unpack_array(value.get("vertices"), dtype="<i4", shape=(None,), what=f"{where}: vertices")
    if not 1 <= len(ids) <= MAX_VERTICES:
        raise EncoderFileError(f"{where}: vertices must be 1 to {MAX_VERTICES}, found {len(ids)}")
    try:
        return Vertices(space, ids)
    except BrainkitError as error:
        raise EncoderFileError(f"{where}: {error}") from None


def _rois(value: Mapping[str, Any], n_vertices: int, where: str) -> RoiTable:
    table = _section(value, "rois", where)
    if len(table) > MAX_ROIS:
        raise EncoderFileError(f"{where}: at most {MAX_ROIS} ROIs are read, found {len(table)}")
    rois: dict[str, np.ndarray] = {}
    left = MAX_ARRAY
    for name, packed in table.items():
        what = f"{where}: ROI {_short(name)}"
        index = unpack_array(packed, dtype="<i4", shape=(None,), what=what)
        left -= index.nbytes
        if left < 0:
            raise EncoderFileError(f"{where}: the ROIs take over {MAX_ARRAY} bytes")
        if len(index) > n_vertices or (len(index) and (index.min() < 0 or index.max() >= n_vertices)):
            raise EncoderFileError(f"{what} must hold indices in 0..{n_vertices - 1}, found others")
        rois[name] = index
    try:
        return RoiTable(rois, n_vertices)
    except BrainkitError as error:
        raise EncoderFileError(f"{where}: the ROIs cannot be used: {_short(str(error))}") from None


def _preprocessing(value: Mapping[str, Any], where: str) -> Preprocessing:
    section = _section(value, "preprocessing", where)
    try:
        return Preprocessing.from_json(section)
    except (BrainkitError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise EncoderFileError(f"{where}: preprocessing cannot be understood: {_short(str(error))}") from None


def _section(value: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = value.get(name)
    if not isinstance(section, dict):
        raise EncoderFileError(f"{where}: {name} must be an object, found {_short(section)}")
    return section


def _text(value: Mapping[str, Any], name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise EncoderFileError(f"{where}: {name} must be text, found {_short(text)}")
    return text


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _short(value: Any) -> str:
    """A hostile value as something that fits on a line."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value[:80]) if isinstance(value, str) else "a huge number" if _huge(value) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _huge(value: Any) -> bool:
    # Python refuses to print an integer of thousands of digits.
    return isinstance(value, int) and abs(value).bit_length() > 256
