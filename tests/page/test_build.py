"""The page as text: what it stores, how much, and that nothing in it can end an element."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from small_page import HOSTILE, make_content

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere, average_surface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.errors import UsageError
from brainkit.maps.brain_map import MapSet
from brainkit.page import PageContent, build
from brainkit.page.geometry import pack_surface
from brainkit.page.pack import Pool


def element(text, name):
    return re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.DOTALL).group(1)


def restore(pool_bytes, told):
    """What `assets/unpack.js` does."""
    kind = {"u": "uint", "i": "int"}[told["type"][0]] + told["type"][1:]
    size = np.dtype(kind).itemsize
    raw = np.frombuffer(pool_bytes, np.uint8, told["count"] * told["columns"] * size, told["at"])
    planes = raw.reshape(told["columns"], size, told["count"]).transpose(0, 2, 1)
    columns = np.ascontiguousarray(planes).view(np.dtype(kind).newbyteorder("<"))[..., 0]
    return (np.cumsum(columns, axis=1, dtype=kind) if told["delta"] else columns).T


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("delta", [False, True])
def test_arrays_come_back_as_they_were(kind, delta):
    limits, rng = np.iinfo(kind), np.random.default_rng(0)
    array = rng.integers(limits.min, limits.max, (63, 3), dtype=kind, endpoint=True)
    pool = Pool()
    pool.add(np.zeros(5, np.uint8))
    told = pool.add(array, delta=delta)
    np.testing.assert_array_equal(restore(zlib.decompress(base64.b64decode(pool.text())), told), array)


def test_numbers_come_back_within_a_step_and_unknown_ones_as_unknown():
    values = np.array([-3.0, np.nan, 0.25, np.inf, 7.0, -np.inf])
    pool = Pool()
    told = pool.add_numbers(values)
    steps = restore(zlib.decompress(base64.b64decode(pool.text())), told)[:, 0]
    known = np.isfinite(values)
    assert (steps[~known] == 65_535).all()
    np.testing.assert_allclose((told["low"] + told["step"] * steps)[known], values[known], atol=told["step"])
    assert told["step"] <= 10 / 1_000


def test_one_far_value_does_not_take_the_others_their_digits():
    values = np.append(np.linspace(0, 1, 999), -50.0)
    assert Pool().add_numbers(values)["step"] < 0.001


def test_the_same_content_gives_the_same_page(content):
    assert build(content) == build(make_content())


def test_texts_cannot_end_their_element():
    text = build(make_content(HOSTILE, HOSTILE, (HOSTILE, "b", "c"), HOSTILE.replace("\n", " "), (HOSTILE, "b", "c")))
    data = element(text, "content")
    assert "<" not in data
    told = json.loads(data)
    assert told["title"] == told["note"] == told["photographs"]["names"][0] == HOSTILE
    assert html.escape(HOSTILE) in text
    assert "<script>window.hacked" not in text


def test_only_the_scripts_and_styles_of_the_page_may_run(content):
    text = build(content)
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', text).group(1)
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!data:)', text)


def rough(surface):
    """A surface whose finer points are not midpoints, as a true one."""
    rng = np.random.default_rng(0)
    halves = [
        Hemisphere(
            {name: p + rng.normal(0, 0.3, p.shape).astype(np.float32) for name, p in half.points.items()},
            half.faces,
            half.flat_faces,
            half.curvature,
        )
        for half in (surface.left, surface.right)
    ]
    return CorticalSurface(surface.name, surface.space, *halves)


def test_finer_points_are_stored_only_where_they_are_not_midpoints():
    surface = average_surface("fsaverage6")
    told = pack_surface(surface, Pool())
    assert told["left"]["levels"] == 1
    assert all("finer" not in shape for shape in told["left"]["shapes"].values())
    assert all("finer" in shape for shape in pack_surface(rough(surface), Pool())["left"]["shapes"].values())


@pytest.mark.parametrize("make", [lambda surface: surface, rough], ids=["midpoints", "rough"])
def test_points_come_back_to_a_twentieth_of_a_millimetre(make):
    surface, pool = make(average_surface("fsaverage6")), Pool()
    told = pack_surface(surface, pool)
    raw = zlib.decompress(base64.b64decode(pool.text()))
    shape = told["right"]["shapes"]["pial"]
    base = restore(raw, shape["points"]).astype(np.int64)
    ends = np.sort(mesh("fsaverage6", "right", "sphere")[0], axis=1)  # only its length is used
    from brainkit.cortex.surface import midpoints

    parents = midpoints("fsaverage6", "right")
    middle = (base[parents[:, 0]] + base[parents[:, 1]]) >> 1
    if "finer" in shape:
        middle = middle + restore(raw, shape["finer"][0])
    points = np.concatenate([base, middle]) * told["step"]
    true = surface.right.points["pial"]
    assert len(points) == len(ends)
    np.testing.assert_allclose(points, true - (true.max(axis=0) + true.min(axis=0)) / 2, atol=0.05)


def big(space):
    """Ten maps of all vertices of a space: smooth, with the noise of one vertex to the next that real ones have."""
    rng = np.random.default_rng(0)
    template = make_content().maps.maps
    vertices = Vertices(space, np.arange(2 * SPACES[space]))
    count = len(vertices)
    depth = np.concatenate([mesh(space, half, "sphere")[0][:, 1] for half in ("left", "right")]) / 200 + 0.5
    weights = np.exp(-np.square(depth[:, None] + 0.05 * rng.standard_normal((count, 1)) - np.linspace(0, 1, 12)) * 30)
    weights *= rng.uniform(0.9, 1.1, (count, 12))
    coding = replace(template[2].coding, names=tuple("abcdefghijkl"), palette=rng.random((12, 3)))
    maps = [replace(template[2], values=weights, coding=coding, reliable=None, strength=depth)]
    for i in range(9):
        values = depth + 0.1 * rng.standard_normal(count)
        maps.append(replace(template[0], name=f"map {i}", values=values, reliable=rng.random(count) < 0.9))
    return MapSet("", vertices, RoiTable({}, count), tuple(maps))


def test_ten_maps_of_all_of_fsaverage5_take_less_than_four_megabytes():
    assert len(build(PageContent(big("fsaverage5"), average_surface("fsaverage5")))) < 4e6


@pytest.mark.slow
def test_ten_maps_of_all_of_a_true_fsaverage_take_less_than_fifteen_megabytes():
    surface = rough(average_surface("fsaverage"))
    assert len(build(PageContent(big("fsaverage"), surface))) < 15e6


def test_what_does_not_fit_is_refused(content):
    maps = content.maps
    with pytest.raises(UsageError, match="fsaverage6"):
        PageContent(maps, average_surface("fsaverage6"))
    with pytest.raises(UsageError, match="names"):
        PageContent(replace(maps, maps=maps.maps[:1] * 2), content.surface)
    with pytest.raises(UsageError, match="shape"):
        PageContent(replace(maps, maps=(replace(maps.maps[0], values=np.zeros(3)),)), content.surface)
    with pytest.raises(UsageError, match="neither"):
        PageContent(replace(maps, maps=()), content.surface)


def test_a_map_without_any_value_is_a_page_too(content):
    maps = content.maps
    empty = replace(maps.maps[0], values=np.full(len(maps.vertices), np.nan))
    told = json.loads(element(build(PageContent(replace(maps, maps=(empty,)), content.surface)), "content"))
    assert told["maps"][0]["empty"]
