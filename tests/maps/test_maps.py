"""Maps as PNG files: these tests read pixels and text back."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import Vertices
from brainkit.errors import BrainkitError, UsageError
from brainkit.maps import draw, figures
from brainkit.maps.colours import layer_palette, location_colours
from brainkit.maps.figure import make_flatmap
from brainkit.maps.view import choose_view, on_flatmap, whole_view
from brainkit.metrics.scores import LEAST_CEILING
from brainkit.metrics.uncertainty import MapUncertainty
from brainkit.utils.own_figures import HEAD, is_own_figure, may_be_own_figure

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
def flatmap(subject):
    return make_flatmap(subject["vertices"], subject["rois"])


@pytest.fixture(scope="module")
def paths(subject, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return draw.draw_maps(folder, title="somebody", note=NOTE, layer_note="gauge: unit", **subject)


def words(figure):
    import matplotlib.text

    return " | ".join(text.get_text() for text in figure.figure.findobj(matplotlib.text.Text))


def map_pixels(figure):
    """The colours of the flatmap before outlines and names, and which pixels are opaque. (H, W, 3), (H, W)."""
    image = figure.map.images[0].get_array()
    return np.asarray(image[..., :3], dtype=float) / 255, np.asarray(image[..., 3]) > 250


def coloured(figure):
    """Pixels of the map with a hue, unlike the greys of the curvature."""
    colours, opaque = map_pixels(figure)
    return opaque & (np.ptp(colours, axis=-1) > 0.08)


def test_all_maps_are_written(paths):
    assert [path.name for path in paths] == FILES == sorted(path.name for path in paths[0].parent.iterdir())
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.mode == "RGB" and 600 < image.width < 1600
            assert len(image.getcolors(1 << 22)) > 500
        assert path.stat().st_size < 500_000


def test_maps_are_known_as_brainkits_own(paths):
    """By a name that is looked at, and by the mark in the file: `predict` does not take them for images."""
    for path in paths:
        assert may_be_own_figure(path.name), path.name
        assert is_own_figure(path.read_bytes()[:HEAD])


@pytest.mark.slow
def test_maps_without_scores_leave_them_out(tmp_path, subject):
    given = {**subject, "r": None, "R2": None, "noise_ceiling": None}
    assert [path.name for path in draw.draw_maps(tmp_path, **given)] == FILES[2:]


@pytest.mark.slow
def test_the_same_data_give_the_same_bytes_and_pyplot_is_not_used(tmp_path, subject, paths):
    sys.modules.pop("matplotlib.pyplot", None)
    again = draw.draw_maps(tmp_path, title="somebody", note=NOTE, layer_note="gauge: unit", **subject)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert "matplotlib.pyplot" not in sys.modules


def test_note_and_legend_are_on_every_figure(flatmap, subject):
    drawn = [
        figures.accuracy_figure(flatmap, subject["R2"], "who", NOTE),
        figures.explained_figure(flatmap, subject["r"], subject["noise_ceiling"], "who", NOTE),
        figures.layer_figure(flatmap, LAYERS, subject["layer_weights"], "who", NOTE, "gauge: published"),
        figures.location_figure(flatmap, subject["locations"], "who", NOTE),
        figures.scale_figure(flatmap, subject["scale"], "who", NOTE, "gauge: published"),
        figures.response_figure(flatmap, subject["scale"], Image.new("RGB", (60, 40)), "who", NOTE, "z", None),
    ]
    for figure in drawn:
        text = words(figure)
        assert NOTE in text and "who" in text and "early" in text and "left hemisphere" in text
        assert "none" not in text.split(" | ")  # an empty region has no place
    assert all(name in words(drawn[2]) for name in LAYERS)
    assert "gauge: published" in words(drawn[2]) and "gauge: published" in words(drawn[4])
    assert "R²" in words(drawn[0]) and "noise ceiling" in words(drawn[1]) and "(z)" in words(drawn[5])


@pytest.mark.parametrize("note", [None, NOTE, "a long note on how these responses were computed, " * 4])
def test_texts_at_the_foot_do_not_overlap(flatmap, subject, note):
    predicted = figures.Predicted(np.zeros(len(subject["R2"])), 1234)
    figure = figures.accuracy_figure(flatmap, subject["R2"], "net", note, predicted).figure
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert all(not one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)


@pytest.mark.slow
def test_vertices_predicted_no_better_than_chance_are_pale_on_every_map(subject, tmp_path, monkeypatch):
    count = len(subject["scale"])
    half = np.arange(count) < subject["vertices"].n_left
    drawn = {}
    monkeypatch.setattr(draw, "_write", lambda path, figure: drawn.setdefault(path.name, figure))

    def coloured_pixels(r, images):
        drawn.clear()
        draw.draw_maps(tmp_path, **{**subject, "r": r}, test_images=images)
        assert list(drawn) == FILES
        return {name: int(coloured(figure).sum()) for name, figure in drawn.items()}

    whole = coloured_pixels(np.full(count, 0.6), None)
    assert "pale" not in words(drawn["layer.png"])
    assert coloured_pixels(np.full(count, 0.6), 100) == whole
    some = coloured_pixels(np.where(half, 0.6, 0.05), 100)
    assert all("pale" in words(figure) and "100" in words(figure) for figure in drawn.values())
    none = coloured_pixels(np.full(count, 0.05), 100)
    assert all("chance" in words(figure) for figure in drawn.values())
    for name in ("layer.png", "location.png", "scale.png"):
        assert 0.3 * whole[name] < some[name] < 0.75 * whole[name] and none[name] < 0.05 * whole[name]
    coloured_pixels(np.full(count, np.nan), 100)  # no prediction varies
    assert all("chance" in words(figure) for figure in drawn.values())


def test_colours_follow_the_data(flatmap, subject):
    count = len(subject["scale"])
    low, opaque = map_pixels(figures.scale_figure(flatmap, np.full(count, 0.02), "", None, None))
    high, _ = map_pixels(figures.scale_figure(flatmap, np.full(count, 0.98), "", None, None))
    differ = opaque & (np.abs(low - high).max(axis=-1) > 0.2)
    same = opaque & (np.abs(low - high).max(axis=-1) == 0)
    assert differ.sum() > 5000 and same.sum() > 5000  # the data, and the curvature around them
    assert (low[differ, 2] > low[differ, 0]).mean() > 0.9  # purple is local
    assert (high[differ, 0] > high[differ, 2]).mean() > 0.99  # orange is global


def test_hemispheres_with_opposite_locations_differ(flatmap, subject):
    figure = figures.location_figure(flatmap, subject["locations"], "", None)
    colours, _ = map_pixels(figure)
    shown = coloured(figure)
    half = shown.shape[1] // 2
    left, right = (colours[:, part][shown[:, part]].mean(axis=0) for part in (slice(0, half), slice(half, None)))
    expected = location_colours(np.array([0.6, -0.6]), np.zeros(2))
    np.testing.assert_allclose([left, right], expected, atol=0.04)


def test_layers_show_their_own_colour(flatmap, subject):
    count = len(subject["scale"])
    for layer, colour in enumerate(layer_palette(3)):
        figure = figures.layer_figure(flatmap, LAYERS, np.eye(3)[np.full(count, layer)], "", None, None)
        colours, _ = map_pixels(figure)
        assert (np.abs(colours[coloured(figure)] - colour).max(axis=-1) < 0.02).mean() > 0.9


def test_an_undecided_vertex_is_dimmer(flatmap, subject):
    count = len(subject["scale"])
    sure = figures.layer_figure(flatmap, LAYERS, np.eye(3)[np.zeros(count, dtype=int)], "", None, None)
    unsure = figures.layer_figure(flatmap, LAYERS, np.tile([0.34, 0.33, 0.33], (count, 1)), "", None, None)
    shown = coloured(sure)
    assert map_pixels(unsure)[0][shown].mean() < 0.6 * map_pixels(sure)[0][shown].mean()


def test_vertices_without_value_are_not_painted(flatmap, subject):
    values = subject["R2"].copy()
    whole = coloured(figures.accuracy_figure(flatmap, values, "", None)).sum()
    values[: subject["vertices"].n_left] = np.nan
    figure = figures.accuracy_figure(flatmap, values, "", None)
    shown = coloured(figure)
    half = shown.shape[1] // 2
    assert shown[:, :half].sum() == 0 and 0.3 * whole < shown[:, half:].sum() < 0.7 * whole
    assert "300 of 600" in words(figure)


def test_a_single_hole_shows_and_a_single_vertex_too(flatmap, subject):
    inside = 20
    hole = subject["R2"].copy()
    full = coloured(figures.accuracy_figure(flatmap, hole, "", None)).sum()
    hole[inside] = np.nan
    assert full - coloured(figures.accuracy_figure(flatmap, hole, "", None)).sum() > 50
    alone = np.full(len(hole), np.nan)
    alone[inside] = 0.3
    assert coloured(figures.accuracy_figure(flatmap, alone, "", None)).sum() > 50


def test_low_ceilings_are_left_out(flatmap, subject):
    ceiling = subject["noise_ceiling"].copy()
    ceiling[:100] = LEAST_CEILING / 2
    ceiling[100:150] = np.nan
    assert "450 of 600" in words(figures.explained_figure(flatmap, subject["r"], ceiling, "", None))


@pytest.mark.slow
def test_nothing_to_show_says_so(flatmap, subject):
    empty = np.full(len(subject["R2"]), np.nan)
    for figure in (
        figures.accuracy_figure(flatmap, empty, "", None),
        figures.explained_figure(flatmap, empty, empty, "", None),
        figures.layer_figure(flatmap, LAYERS, np.full((len(empty), 3), np.nan), "", None, None),
        figures.location_figure(flatmap, np.full((len(empty), 2), np.nan), "", None),
        figures.scale_figure(flatmap, empty, "", None, None),
        figures.response_figure(flatmap, empty, Image.new("L", (9, 9)), "", None, "", None),
    ):
        assert "no vertex has a value" in words(figure)
        assert coloured(figure).sum() == 0
        figure.render()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_handful_of_vertices(tmp_path, count):
    vertices = Vertices("fsaverage5", posterior(300).ids[:count])
    rois = RoiTable({"one": np.arange(count)}, count)
    image = Image.new("RGB", (40, 80))
    path = draw.draw_response(
        tmp_path / "few.png", vertices=vertices, rois=rois, response=np.ones(count), image=image, title="few"
    )
    assert path.is_file()


def test_off_the_flatmap():
    on = np.unique(mesh("fsaverage5", "left", "flat")[1])
    off = np.setdiff1d(np.arange(10242), on)
    vertices = Vertices("fsaverage5", off)
    assert not on_flatmap(vertices).any()
    figure = figures.accuracy_figure(make_flatmap(vertices, RoiTable({}, len(off))), np.ones(len(off)), "", None)
    assert "is on the flatmap" in words(figure)


def test_views():
    near, full = choose_view(posterior(300)), whole_view("fsaverage5")
    assert near.cropped and near.width < 0.5 * full.width
    assert [box.hemisphere for box in near.boxes] == ["left", "right"]
    assert [box.hemisphere for box in choose_view(posterior(300, ("right",))).boxes] == ["right"]
    everything = choose_view(Vertices("fsaverage5", np.arange(20484)))
    assert not everything.cropped and everything == full


@pytest.mark.slow
@pytest.mark.parametrize("space", ["fsaverage6", "fsaverage"])
def test_finer_spaces_are_drawn_on_their_own_mesh(space):
    count = {"fsaverage6": 40962, "fsaverage": 163842}[space]
    coarse = posterior(60)
    near = mesh(space, "left", "sphere")[0] @ mesh(space, "left", "sphere")[0][coarse.left[0]]
    ids = np.flatnonzero(near > np.sort(near)[-400])
    vertices = Vertices(space, ids)
    flatmap = make_flatmap(vertices, RoiTable({"all": np.arange(len(ids))}, len(ids)))
    assert len(ids) < count and flatmap.outlines.shape[1:] == (2, 2) and len(flatmap.outlines) > 20
    assert coloured(figures.accuracy_figure(flatmap, np.full(len(ids), 0.4), "", None)).sum() > 3000


def test_response_is_symmetric_and_limited(tmp_path, flatmap, subject):
    count = len(subject["scale"])
    image = Image.new("RGB", (300, 200), (10, 200, 30))
    plus = figures.response_figure(flatmap, np.full(count, 0.5), image, "t", None, "", 1.0)
    minus = figures.response_figure(flatmap, np.full(count, -0.5), image, "t", None, "", 1.0)
    red, blue = (map_pixels(figure)[0][coloured(figure)].mean(axis=0) for figure in (plus, minus))
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.2
    green = np.abs(plus.render().astype(int) - [10, 200, 30]).max(axis=-1) < 3
    assert green.sum() > 30_000  # the photograph is there, and not cropped
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert len(columns) / len(rows) == pytest.approx(1.5, abs=0.03)


def test_names_with_dollars_are_no_formulas(subject):
    name = r"cost$\frac$.png"
    rois = RoiTable({r"$\frac$": subject["rois"]["early"]}, len(subject["scale"]))
    flatmap, image = make_flatmap(subject["vertices"], rois), Image.new("RGB", (4, 4))
    layers = (r"$\frac$", "$x$", "a$b")
    layer = figures.layer_figure(flatmap, layers, subject["layer_weights"], name, r"$\note$", r"$\gauge$")
    response = figures.response_figure(flatmap, subject["scale"], image, name, None, r"$\frac$", None)
    for figure, texts in ((layer, (*layers, r"$\note$", r"$\gauge$")), (response, (r"($\frac$)",))):
        figure.render()
        assert all(text in words(figure) for text in (name, *texts))


def test_a_name_that_the_font_lacks_is_drawn_without_a_word(flatmap, subject, recwarn):
    figures.scale_figure(flatmap, subject["scale"], "\u4e2d\u6587.png", None, None).render()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_refusals(tmp_path, subject):
    custom = {**subject, "vertices": Vertices.custom(len(subject["scale"]))}
    with pytest.raises(UsageError, match="fsaverage space"):
        draw.draw_maps(tmp_path, **custom)
    for name in ("layer_weights", "locations", "scale", "r", "R2", "noise_ceiling"):
        with pytest.raises(UsageError, match=name):
            draw.draw_maps(tmp_path, **{**subject, name: subject[name][:-1]})
    with pytest.raises(UsageError, match="rois"):
        draw.draw_maps(tmp_path, **{**subject, "rois": RoiTable({}, 3)})
    base = {"vertices": subject["vertices"], "rois": subject["rois"], "image": Image.new("RGB", (4, 4)), "title": "t"}
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="limit"):
            draw.draw_response(tmp_path / "a.png", response=subject["scale"], limit=limit, **base)
    with pytest.raises(UsageError, match="response"):
        draw.draw_response(tmp_path / "a.png", response=subject["scale"][1:], **base)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_half_written(tmp_path, monkeypatch, subject):
    with pytest.raises(BrainkitError, match="does not exist"):
        draw.draw_maps(tmp_path / "missing", **subject)

    def full_disk(self, file, **options):
        with open(file, "wb") as beside:
            beside.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(BrainkitError, match="No space left"):
        draw.draw_maps(tmp_path, **subject)
    assert list(tmp_path.iterdir()) == []


def test_long_layer_names_keep_what_differs():
    assert figures._short(["a", "b"]) == ["a", "b"]
    assert figures._short([f"blocks.{i}.attention.out" for i in range(12)])[11] == "11"
    assert figures._short(["x" * 30]) == ["…" + "x" * 13]
    assert all(len(name) <= 14 for name in figures._short(["first_very_long_name_a", "second_other_long_name_b"]))


def test_each_location_in_the_image_has_its_own_colour():
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    colours = location_colours(x, y)
    assert colours.shape == (9, 9, 3) and colours.min() >= 0 and colours.max() <= 1
    assert np.ptp(colours[4, 4]) < 0.02  # the middle is pale
    ring = location_colours(0.8 * np.cos(np.arange(12) * np.pi / 6), 0.8 * np.sin(np.arange(12) * np.pi / 6))
    difference = np.abs(ring[:, None] - ring[None]).max(axis=-1) + np.eye(12)
    assert difference.min() > 0.05


@pytest.fixture
def uncertainty(subject):
    """Large standard errors of depth in the left hemisphere, of location and scale in the right."""
    count, left = len(subject["vertices"]), subject["vertices"].n_left
    depth, scale = np.full(count, 0.01), np.full(count, 0.01)
    depth[:left], scale[left:] = 0.3, 0.3
    return MapUncertainty(depth, np.column_stack([scale * 2, scale * 2]), scale, "halves", 8)


@pytest.mark.slow
def test_unsure_vertices_are_pale_on_the_map_that_is_unsure(tmp_path, subject, uncertainty, monkeypatch):
    drawn = {}
    monkeypatch.setattr(draw, "_write", lambda path, figure: drawn.setdefault(path.name, figure) and path)
    draw.draw_maps(tmp_path, title="who", note=NOTE, test_images=40, uncertainty=uncertainty, **subject)
    assert sorted(drawn) == sorted([*FILES, "depth-se.png"])
    sides = {name: hues_by_side(figure) for name, figure in drawn.items()}
    assert sides["layer.png"][1] > 5 * sides["layer.png"][0]
    assert sides["scale.png"][0] > 5 * sides["scale.png"][1]
    assert sides["location.png"][0] > 5 * sides["location.png"][1]
    for name in ("layer.png", "scale.png", "location.png"):
        assert "standard error" in words(drawn[name]) and "10 %" in words(drawn[name])
    text = words(drawn["depth-se.png"])
    assert NOTE in text and "8 runs on halves" in text
    assert "standard error" not in words(drawn["accuracy.png"])
    assert may_be_own_figure("depth-se.png")


def hues_by_side(figure):
    """How many pixels of the left and of the right half of the map have a hue."""
    hue = coloured(figure)
    middle = hue.shape[1] // 2
    return int(hue[:, :middle].sum()) + 1, int(hue[:, middle:].sum()) + 1
