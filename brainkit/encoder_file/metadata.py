"""The JSON of an encoder file: the same in every container (ONNX, TorchScript, .pt2)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.cortex.volume import Volume
from brainkit.data.split import SIDES
from brainkit.encoder_file.arrays import MAX_ARRAY, is_int, pack_array, short, unpack_array
from brainkit.encoder_file.container import MAX_METADATA
from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import BrainkitError, EncoderFileError
from brainkit.images import Preprocessing
from brainkit.metrics.uncertainty import BASES, MapUncertainty

FORMAT = "brainkit encoder"
SCHEMA = 1

MAX_VERTICES = 4_000_000
MAX_LAYERS = 1024
MAX_ROIS = 4096
MAX_MEMBERS = 1024
MAX_IMAGES = 4_000_000  # of a side of the split
_STANDARD_ERRORS = ("depth_se", "location_se", "scale_se")


def to_json(info: EncoderInfo) -> str:
    """The metadata as compact JSON, the same in every container (ONNX, TorchScript, .pt2).

    Raises
    ------
    EncoderFileError
        If a part cannot be written as JSON, such as NaN in the provenance.
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
        **({"terms": info.terms} if info.terms else {}),
        **({"citation": info.citation} if info.citation else {}),
        "provenance": info.provenance,
        "certificate": info.certificate,
    }
    if info.volume is not None:
        value["volume"] = {
            "shape": list(info.volume.shape),
            "affine": info.volume.affine.tolist(),
            "voxels": pack_array(np.asarray(info.volume.voxels, "<i4")),
        }
    if info.image_hashes is not None:
        value["image_hashes"] = {side: pack_array(np.asarray(info.image_hashes[side], "<i8")) for side in SIDES}
    if info.form is not None:
        value["form"] = info.form
    # Keys that most files do not need are left out.
    optional = {"quantised": info.quantised, "ensemble": info.ensemble}
    value |= {key: section for key, section in optional.items() if section is not None}
    if info.uncertainty is not None:
        value["uncertainty"] = {
            **{name: pack_array(np.asarray(getattr(info.uncertainty, name), "<f4")) for name in _STANDARD_ERRORS},
            "basis": info.uncertainty.basis,
            "runs": info.uncertainty.runs,
            "max_se": info.uncertainty.max_se,
        }
    if info.storage != "float32":
        value["storage"] = info.storage
    try:
        # ASCII, so that any text survives any reader; sizes in bytes and characters agree.
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise EncoderFileError(f"the encoder's metadata cannot be written as JSON: {error}") from None


def from_json(text: bytes | str, *, source: str | os.PathLike[str]) -> EncoderInfo:
    """Check the JSON of an encoder file and unpack it; errors name `source`.

    Raises
    ------
    EncoderFileError
        If anything is missing, of the wrong type or size, or of a later schema.
    """
    where = f"{source}: the brainkit metadata"
    if len(text) > MAX_METADATA:
        raise EncoderFileError(f"{where} takes {len(text)} bytes; at most {MAX_METADATA} are read")
    value = _parse(text, source, where)
    layers = _layers(value, where)
    grid = value.get("grid")
    if not (isinstance(grid, list) and len(grid) == 2 and all(is_int(n, 1, 4096) for n in grid)):
        raise EncoderFileError(f"{where}: grid must be two sizes (H, W), found {short(grid)}")
    if not is_int(value.get("bottleneck"), 1, 1 << 20):
        raise EncoderFileError(f"{where}: bottleneck must be a count, found {short(value.get('bottleneck'))}")
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
        terms=_terms(value, where),
        citation=_text(value, "citation", where) if "citation" in value else "",
        backbone=_section(value, "backbone", where),
        provenance=_section(value, "provenance", where),
        certificate=None if value.get("certificate") is None else _section(value, "certificate", where),
        volume=_volume(value, V, where),
        form=None if value.get("form") is None else _text(value, "form", where),
        storage=_storage(value, where),
        quantised=None if value.get("quantised") is None else _section(value, "quantised", where),
        ensemble=_ensemble(value, where),
        image_hashes=_image_hashes(value, where),
        uncertainty=_uncertainty(value, V, where),
    )


def _parse(text: bytes | str, source: str | os.PathLike[str], where: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    def finite(digits: str) -> float:
        number = float(digits)
        return number if math.isfinite(number) else refuse(digits)

    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        value = json.loads(decoded, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else short(str(error))
        raise EncoderFileError(f"{where} cannot be parsed: {reason}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise EncoderFileError(f"{where} must be a JSON object with format {FORMAT!r}, found {short(value)}")
    schema = value.get("schema")
    if not isinstance(schema, int) or not is_int(schema, 1, 1 << 31):
        raise EncoderFileError(f"{where}: schema must be a whole number, found {short(schema)}")
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
        raise EncoderFileError(f"{where}: layers must be 1 to {MAX_LAYERS} different names, found {short(layers)}")
    return tuple(layers)


def _vertices(value: Mapping[str, Any], where: str) -> Vertices:
    space = value.get("space")
    if not isinstance(space, str) or space not in (*SPACES, "custom"):
        known = ", ".join((*SPACES, "custom"))
        raise EncoderFileError(f"{where}: space must be one of {known}, found {short(space)}")
    what = f"{where}: vertices"
    ids = unpack_array(value.get("vertices"), dtype="<i4", shape=(None,), what=what, at_most=MAX_VERTICES)
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
        what = f"{where}: ROI {short(name)}"
        index = unpack_array(packed, dtype="<i4", shape=(None,), what=what, at_most=n_vertices)
        left -= index.nbytes
        if left < 0:
            raise EncoderFileError(f"{where}: the ROIs take over {MAX_ARRAY} bytes")
        if len(index) and (index.min() < 0 or index.max() >= n_vertices):
            found = f"{index.min()}..{index.max()}"
            raise EncoderFileError(f"{what} must hold indices in 0..{n_vertices - 1}, found {found}")
        rois[name] = index
    try:
        return RoiTable(rois, n_vertices)
    except BrainkitError as error:
        raise EncoderFileError(f"{where}: the ROIs cannot be used: {short(str(error))}") from None


def _volume(value: Mapping[str, Any], n_vertices: int, where: str) -> Volume | None:
    if value.get("volume") is None:
        return None
    section = _section(value, "volume", where)
    voxels = unpack_array(section.get("voxels"), dtype="<i4", shape=(n_vertices, 3), what=f"{where}: volume.voxels")
    try:
        return Volume(section.get("shape"), section.get("affine"), voxels)  # type: ignore[arg-type]
    except BrainkitError as error:
        raise EncoderFileError(f"{where}: {error}") from None


def _preprocessing(value: Mapping[str, Any], where: str) -> Preprocessing:
    section = _section(value, "preprocessing", where)
    try:
        return Preprocessing.from_json(section)
    except (BrainkitError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise EncoderFileError(f"{where}: preprocessing cannot be understood: {short(str(error))}") from None


def _terms(value: Mapping[str, Any], where: str) -> dict[str, str]:
    if "terms" not in value:
        return {}
    terms = _section(value, "terms", where)
    return {part: _text(terms, part, f"{where}: terms") for part in terms}


def _storage(value: Mapping[str, Any], where: str) -> str:
    storage = value.get("storage", "float32")
    if not isinstance(storage, str) or storage not in ("float32", "float16"):
        raise EncoderFileError(f"{where}: storage must be float32 or float16, found {short(storage)}")
    return storage


def _ensemble(value: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    if value.get("ensemble") is None:
        return None
    section = _section(value, "ensemble", where)
    members = section.get("members")
    if not is_int(members, 2, MAX_MEMBERS) or value["bottleneck"] % members:
        raise EncoderFileError(
            f"{where}: ensemble.members must be 2 to {MAX_MEMBERS} and divide {value['bottleneck']} channels evenly, "
            f"found {short(members)}"
        )
    return section


def _image_hashes(value: Mapping[str, Any], where: str) -> dict[str, np.ndarray] | None:
    if value.get("image_hashes") is None:
        return None
    section = _section(value, "image_hashes", where)
    return {
        side: unpack_array(
            section.get(side), dtype="<i8", shape=(None,), what=f"{where}: image_hashes.{side}", at_most=MAX_IMAGES
        )
        for side in SIDES
    }


def _uncertainty(value: Mapping[str, Any], n_vertices: int, where: str) -> MapUncertainty | None:
    if value.get("uncertainty") is None:
        return None
    section = _section(value, "uncertainty", where)
    where = f"{where}: uncertainty"
    arrays = {}
    for name in _STANDARD_ERRORS:
        shape = (n_vertices, 2) if name == "location_se" else (n_vertices,)
        arrays[name] = unpack_array(section.get(name), dtype="<f4", shape=shape, what=f"{where}.{name}")
        if not (np.isfinite(arrays[name]).all() and (arrays[name] >= 0).all()):
            raise EncoderFileError(f"{where}.{name} must be finite and not negative, found other numbers")
    runs, basis, max_se = section.get("runs"), _text(section, "basis", where), section.get("max_se")
    if basis not in BASES:
        raise EncoderFileError(f"{where}.basis must be one of {', '.join(BASES)}, found {short(basis)}")
    if not (isinstance(runs, int) and is_int(runs, 2, MAX_MEMBERS)):
        raise EncoderFileError(f"{where}.runs must be 2 to {MAX_MEMBERS}, found {short(runs)}")
    if not (isinstance(max_se, float | int) and 0 < max_se <= 1):
        raise EncoderFileError(f"{where}.max_se must be above 0 and at most 1, found {short(max_se)}")
    return MapUncertainty(**arrays, basis=basis, runs=runs, max_se=float(max_se))


def _section(value: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = value.get(name)
    if not isinstance(section, dict):
        raise EncoderFileError(f"{where}: {name} must be an object, found {short(section)}")
    return section


def _text(value: Mapping[str, Any], name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise EncoderFileError(f"{where}: {name} must be text, found {short(text)}")
    return text
