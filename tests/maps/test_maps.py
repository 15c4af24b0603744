"""Static maps: files that show what the data say. Looked at by eye as well; these tests read pixels back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from brainkit.cortex.surface import RoiTable, Vertices, mesh
from brainkit.errors import BrainkitError, UsageError
from brainkit.maps import draw as static
from brainkit.maps import figures as pages
from brainkit.maps.figure import make_scene
from brainkit.maps.view import choose_view, on_flatmap, whole_view
from brainkit.metrics.scores import LEAST_CEILING

pytest.importorskip("nilearn", reason="the meshes come with nilearn")
pytest.importorskip("matplotlib", reason="maps are drawn with it")

NOTE = "SIMULATED subject, not a brain"
LAYERS = ("stage1", "stage2", "stage3")
FILES = ["accuracy.png", "explained.png", "layer.png", "location.png", "scale.png"]


def posterior(count, hemispheres=("left", "right")):
    masks = {}
    for hemisphere in ("left", "right"):
        sphere = mesh("fsaverage5", hemisphere, "sphere")[0]
        pole = mesh("fsaverage5", hemisphere, "pial")[0][:, 1].argmin()
        masks[hemisphere] = np.zeros(10242, dtype=bool)
        if hemisphere in hemispheres:
            masks[hemisphere][np.argsort(-(sphere @ sphere[pole]))[:count]] = True
    return Vertices.from_masks(masks["left"], masks["right"])


@pytest.fixture(scope="module")
def subject():
    vertices = posterior(300)
    count = len(vertices)
    weights = np.full((count, 3), 0.05)
    weights[np.arange(count), np.arange(count) * 3 // count] = 0.9
    side = np.where(np.arange(count) < vertices.n_left, 1.0, -1.0)
    rois = {"early": np.arange(0, count, 1)[: count // 4], "none": np.array([], dtype=int)}
    return {
        "vertices": vertices,
        "rois": RoiTable(rois, count),
        "layers": LAYERS,
        "layer_weights": weights,
        "locations": np.column_stack([0.6 * side, np.zeros(count)]),
        "scale": np.linspace(0.05, 0.7, count),
        "r": np.full(count, 0.6),
        "R2": np.full(count, 0.3),
        "noise_ceiling": np.full(count, 0.5),
    }


@pytest.fixture(scope="module")
def scene(subject):
    return make_scene(subject["vertices"], subject["rois"])


def words(page):
    import matplotlib.text

    return " | ".join(text.get_text() for text in page.figure.findobj(matplotlib.text.Text))


def map_pixels(page):
    """The colours of the flatmap before outlines and names, and which pixels are opaque. (H, W, 3), (H, W)."""
    image = page.map.images[0].get_array()
    return np.asarray(image[..., :3], dtype=float) / 255, np.asarray(image[..., 3]) > 250


def coloured(page):
    """Pixels of the map with a hue, unlike the greys of the curvature."""
    colours, opaque = map_pixels(page)
    return opaque & (np.ptp(colours, axis=-1) > 0.08)


def test_all_maps_are_written(tmp_path, subject):
    paths = static.draw_maps(tmp_path, title="somebody", note=NOTE, layer_note="gauge: unit", **subject)
    assert [path.name for path in paths] == FILES == sorted(path.name for path in tmp_path.iterdir())
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.mode == "RGB" and 600 < image.width < 1600
            assert len(image.getcolors(1 << 22)) > 500
        assert path.stat().st_size < 500_000


def test_maps_without_scores_leave_them_out(tmp_path, subject):
    given = {**subject, "r": None, "R2": None, "noise_ceiling": None}
    assert [path.name for path in static.draw_maps(tmp_path, **given)] == FILES[2:]


def test_the_same_data_give_the_same_bytes(tmp_path, subject):
    first = [path.read_bytes() for path in static.draw_maps(tmp_path, **subject)]
    assert first == [path.read_bytes() for path in static.draw_maps(tmp_path, **subject)]


def test_note_and_legend_are_on_every_page(scene, subject):
    drawn = [
        pages.accuracy_page(scene, subject["R2"], "who", NOTE),
        pages.explained_page(scene, subject["r"], subject["noise_ceiling"], "who", NOTE),
        pages.layer_page(scene, LAYERS, subject["layer_weights"], "who", NOTE, "gauge: published"),
        pages.location_page(scene, subject["locations"], "who", NOTE),
        pages.scale_page(scene, subject["scale"], "who", NOTE, "gauge: published"),
        pages.response_page(scene, subject["scale"], Image.new("RGB", (60, 40)), "who", NOTE, "z", None),
    ]
    for page in drawn:
        said = words(page)
        assert NOTE in said and "who" in said and "early" in said and "left hemisphere" in said
        assert "none" not in said.split(" | ")  # an empty region has no place
    assert all(name in words(drawn[2]) for name in LAYERS)
    assert "gauge: published" in words(drawn[2]) and "gauge: published" in words(drawn[4])
    assert "R²" in words(drawn[0]) and "noise ceiling" in words(drawn[1]) and "(z)" in words(drawn[5])


def test_colours_follow_the_data(scene, subject):
    count = len(subject["scale"])
    low, opaque = map_pixels(pages.scale_page(scene, np.full(count, 0.02), "", None, None))
    high, _ = map_pixels(pages.scale_page(scene, np.full(count, 0.98), "", None, None))
    differ = opaque & (np.abs(low - high).max(axis=-1) > 0.2)
    same = opaque & (np.abs(low - high).max(axis=-1) == 0)
    assert differ.sum() > 5000 and same.sum() > 5000  # the data, and the curvature around them
    assert (low[differ, 2] > low[differ, 0]).mean() > 0.9  # purple is local
    assert (high[differ, 0] > high[differ, 2]).mean() > 0.99  # orange is global


def test_hemispheres_with_opposite_locations_differ(scene, subject):
    page = pages.location_page(scene, subject["locations"], "", None)
    colours, _ = map_pixels(page)
    shown = coloured(page)
    half = shown.shape[1] // 2
    left, right = (colours[:, part][shown[:, part]].mean(axis=0) for part in (slice(0, half), slice(half, None)))
    expected = pages.location_colours(np.array([0.6, -0.6]), np.zeros(2))
    np.testing.assert_allclose([left, right], expected, atol=0.04)


def test_layers_show_their_own_colour(scene, subject):
    count = len(subject["scale"])
    for layer, colour in enumerate(pages._layer_palette(3)):
        page = pages.layer_page(scene, LAYERS, np.eye(3)[np.full(count, layer)], "", None, None)
        colours, _ = map_pixels(page)
        assert (np.abs(colours[coloured(page)] - colour).max(axis=-1) < 0.02).mean() > 0.9


def test_an_undecided_vertex_is_dimmer(scene, subject):
    count = len(subject["scale"])
    sure = pages.layer_page(scene, LAYERS, np.eye(3)[np.zeros(count, dtype=int)], "", None, None)
    unsure = pages.layer_page(scene, LAYERS, np.tile([0.34, 0.33, 0.33], (count, 1)), "", None, None)
    shown = coloured(sure)
    assert map_pixels(unsure)[0][shown].mean() < 0.6 * map_pixels(sure)[0][shown].mean()


def test_vertices_without_value_are_not_painted(scene, subject):
    values = subject["R2"].copy()
    whole = coloured(pages.accuracy_page(scene, values, "", None)).sum()
    values[: subject["vertices"].n_left] = np.nan
    page = pages.accuracy_page(scene, values, "", None)
    shown = coloured(page)
    half = shown.shape[1] // 2
    assert shown[:, :half].sum() == 0 and 0.3 * whole < shown[:, half:].sum() < 0.7 * whole
    assert "300 of 600" in words(page)


def test_a_single_hole_shows_and_a_single_vertex_too(scene, subject):
    inside = 20
    hole = subject["R2"].copy()
    full = coloured(pages.accuracy_page(scene, hole, "", None)).sum()
    hole[inside] = np.nan
    assert full - coloured(pages.accuracy_page(scene, hole, "", None)).sum() > 50
    alone = np.full(len(hole), np.nan)
    alone[inside] = 0.3
    assert coloured(pages.accuracy_page(scene, alone, "", None)).sum() > 50


def test_low_ceilings_are_left_out(scene, subject):
    ceiling = subject["noise_ceiling"].copy()
    ceiling[:100] = LEAST_CEILING / 2
    ceiling[100:150] = np.nan
    assert "450 of 600" in words(pages.explained_page(scene, subject["r"], ceiling, "", None))


def test_nothing_to_show_says_so(scene, subject):
    empty = np.full(len(subject["R2"]), np.nan)
    for page in (
        pages.accuracy_page(scene, empty, "", None),
        pages.explained_page(scene, empty, empty, "", None),
        pages.layer_page(scene, LAYERS, np.full((len(empty), 3), np.nan), "", None, None),
        pages.location_page(scene, np.full((len(empty), 2), np.nan), "", None),
        pages.scale_page(scene, empty, "", None, None),
        pages.response_page(scene, empty, Image.new("L", (9, 9)), "", None, "", None),
    ):
        assert "no vertex has a value" in words(page)
        assert coloured(page).sum() == 0
        page.picture()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_handful_of_vertices(tmp_path, count):
    vertices = Vertices("fsaverage5", posterior(300).ids[:count])
    rois = RoiTable({"one": np.arange(count)}, count)
    image = Image.new("RGB", (40, 80))
    path = static.draw_response(
        tmp_path / "few.png", vertices=vertices, rois=rois, response=np.ones(count), image=image, title="few"
    )
    assert path.is_file()


def test_off_the_flatmap():
    on = np.unique(mesh("fsaverage5", "left", "flat")[1])
    off = np.setdiff1d(np.arange(10242), on)
    vertices = Vertices("fsaverage5", off)
    assert not on_flatmap(vertices).any()
    page = pages.accuracy_page(make_scene(vertices, RoiTable({}, len(off))), np.ones(len(off)), "", None)
    assert "lies on the flatmap" in words(page)


def test_views():
    near, full = choose_view(posterior(300)), whole_view("fsaverage5")
    assert near.cropped and near.width < 0.5 * full.width
    assert [box.hemisphere for box in near.boxes] == ["left", "right"]
    assert [box.hemisphere for box in choose_view(posterior(300, ("right",))).boxes] == ["right"]
    everything = choose_view(Vertices("fsaverage5", np.arange(20484)))
    assert not everything.cropped and everything == full


@pytest.mark.parametrize("space", ["fsaverage6", "fsaverage"])
def test_finer_spaces_are_drawn_on_their_own_mesh(space):
    count = {"fsaverage6": 40962, "fsaverage": 163842}[space]
    coarse = posterior(60)
    near = mesh(space, "left", "sphere")[0] @ mesh(space, "left", "sphere")[0][coarse.left[0]]
    ids = np.flatnonzero(near > np.sort(near)[-400])
    vertices = Vertices(space, ids)
    scene = make_scene(vertices, RoiTable({"all": np.arange(len(ids))}, len(ids)))
    assert len(ids) < count and scene.outlines.shape[1:] == (2, 2) and len(scene.outlines) > 20
    assert coloured(pages.accuracy_page(scene, np.full(len(ids), 0.4), "", None)).sum() > 3000


def test_response_is_symmetric_and_limited(tmp_path, scene, subject):
    count = len(subject["scale"])
    image = Image.new("RGB", (300, 200), (10, 200, 30))
    plus = pages.response_page(scene, np.full(count, 0.5), image, "t", None, "", 1.0)
    minus = pages.response_page(scene, np.full(count, -0.5), image, "t", None, "", 1.0)
    red, blue = (map_pixels(page)[0][coloured(page)].mean(axis=0) for page in (plus, minus))
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.2
    green = np.abs(plus.picture().astype(int) - [10, 200, 30]).max(axis=-1) < 3
    assert green.sum() > 30_000  # the photograph is there, and not cropped
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert len(columns) / len(rows) == pytest.approx(1.5, abs=0.03)


def test_names_with_dollars_are_no_formulas(tmp_path, subject):
    name = r"cost$\frac$.png"
    rois = RoiTable({r"$\frac$": subject["rois"]["early"]}, len(subject["scale"]))
    layers = (r"$\frac$", "$x$", "a$b")
    paths = static.draw_maps(tmp_path, title=name, **{**subject, "rois": rois, "layers": layers})
    assert [path.name for path in paths] == FILES
    page = pages.response_page(
        make_scene(subject["vertices"], rois), subject["scale"], Image.new("RGB", (4, 4)), name, None, r"$\frac$", None
    )
    page.picture()
    assert name in words(page) and r"($\frac$)" in words(page)


def test_a_name_that_the_font_lacks_is_drawn_without_a_word(scene, subject, recwarn):
    pages.scale_page(scene, subject["scale"], "\u4e2d\u6587.png", None, None).picture()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_refusals(tmp_path, subject):
    custom = {**subject, "vertices": Vertices.custom(len(subject["scale"]))}
    with pytest.raises(UsageError, match="fsaverage space"):
        static.draw_maps(tmp_path, **custom)
    for name in ("layer_weights", "locations", "scale", "r", "R2", "noise_ceiling"):
        with pytest.raises(UsageError, match=name):
            static.draw_maps(tmp_path, **{**subject, name: subject[name][:-1]})
    with pytest.raises(UsageError, match="rois"):
        static.draw_maps(tmp_path, **{**subject, "rois": RoiTable({}, 3)})
    base = {"vertices": subject["vertices"], "rois": subject["rois"], "image": Image.new("RGB", (4, 4)), "title": "t"}
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="limit"):
            static.draw_response(tmp_path / "a.png", response=subject["scale"], limit=limit, **base)
    with pytest.raises(UsageError, match="response"):
        static.draw_response(tmp_path / "a.png", response=subject["scale"][1:], **base)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_half_written(tmp_path, monkeypatch, subject):
    with pytest.raises(BrainkitError, match="does not exist"):
        static.draw_maps(tmp_path / "missing", **subject)

    def full_disk(self, file, **options):
        with open(file, "wb") as beside:
            beside.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(BrainkitError, match="No space left"):
        static.draw_maps(tmp_path, **subject)
    assert list(tmp_path.iterdir()) == []


def test_long_layer_names_keep_what_differs():
    assert pages._short(["a", "b"]) == ["a", "b"]
    assert pages._short([f"blocks.{i}.attention.out" for i in range(12)])[11] == "11"
    assert pages._short(["x" * 30]) == ["…" + "x" * 13]
    assert all(len(name) <= 14 for name in pages._short(["first_very_long_name_a", "second_other_long_name_b"]))


def test_place_in_the_image_has_its_own_colour():
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    colours = pages.location_colours(x, y)
    assert colours.shape == (9, 9, 3) and colours.min() >= 0 and colours.max() <= 1
    assert np.ptp(colours[4, 4]) < 0.02  # the middle is pale
    ring = pages.location_colours(0.8 * np.cos(np.arange(12) * np.pi / 6), 0.8 * np.sin(np.arange(12) * np.pi / 6))
    apart = np.abs(ring[:, None] - ring[None]).max(axis=-1) + np.eye(12)
    assert apart.min() > 0.05


def test_no_figure_state_is_kept(subject, tmp_path):
    import sys

    sys.modules.pop("matplotlib.pyplot", None)
    static.draw_maps(tmp_path, **subject)
    assert "matplotlib.pyplot" not in sys.modules
