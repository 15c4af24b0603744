"""Maps as figures: these tests read pixels and text back."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from map_pixels import coloured, hue_by_side, map_pixels, words
from PIL import Image

from brainkit.cortex.cortical_surface import average_surface
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import Vertices
from brainkit.errors import BrainkitError, UsageError
from brainkit.maps import definitions, draw
from brainkit.maps.brain_map import MapSet
from brainkit.maps.colours import layer_palette, location_colours
from brainkit.maps.figure import MapFigure
from brainkit.maps.legend import short_names
from brainkit.maps.reliability import Predicted
from brainkit.maps.scene import make_scene
from brainkit.maps.style import DEFAULT, Style
from brainkit.metrics.uncertainty import MapUncertainty
from brainkit.utils.own_figures import HEAD, is_own_figure

pytest.importorskip("nilearn", reason="the meshes come with nilearn")
pytest.importorskip("matplotlib", reason="maps are drawn with it")

NOTE = "SIMULATED subject, not a brain"
LAYERS = ("stage1", "stage2", "stage3")
FILES = ["accuracy.png", "explained.png", "layer.png", "location.png", "scale.png"]


@pytest.fixture(scope="module")
def paths(map_set, tmp_path_factory):
    return draw.draw_maps(tmp_path_factory.mktemp("maps"), map_set())


def drawn_maps(maps):
    return {each.name: MapFigure(maps, each, DEFAULT, 120) for each in maps.maps}


def test_all_maps_are_written(paths):
    assert [path.name for path in paths] == FILES == sorted(path.name for path in paths[0].parent.iterdir())
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.mode == "RGB" and 800 < image.width < 2000
            assert len(image.getcolors(1 << 22)) > 500
        assert path.stat().st_size < 800_000


def test_maps_are_known_as_brainkits_own(paths):
    """By the mark in the file: `predict` does not take them for images."""
    for path in paths:
        assert is_own_figure(path.read_bytes()[:HEAD])


@pytest.mark.slow
def test_the_same_data_give_the_same_bytes_and_pyplot_is_not_used(tmp_path, map_set, paths):
    sys.modules.pop("matplotlib.pyplot", None)
    again = draw.draw_maps(tmp_path, map_set())
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_vector_files_have_text_as_text_and_the_same_bytes(tmp_path, map_set, kind):
    maps, written = map_set().only(["scale"]), []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (path,) = draw.draw_maps(tmp_path / folder, maps, style=Style(width=3.5, dpi=80), formats=[kind])
        written.append(path.read_bytes())
    assert written[0] == written[1]
    if kind == "svg":
        text = written[0].decode()
        assert all(f">{word}</text>" in text for word in ("early", "left hemisphere", NOTE))
        assert text.count("<image") <= 5 and text.count("<path") > 2  # the map is one image, outlines are paths
    else:
        assert b"/Subtype /Type0" in written[0] and b"/Subtype /Type3" not in written[0]


def test_a_figure_has_the_size_and_resolution_asked_for(tmp_path, map_set):
    maps = map_set().only(["scale"])
    style = Style(width=5.0, height=3.0, dpi=60)
    (path,) = draw.draw_maps(tmp_path, maps, style=style)
    with Image.open(path) as image:
        assert image.size == (300, 180)
        assert image.info["dpi"] == pytest.approx((60, 60), abs=0.1)


@pytest.mark.parametrize("theme", ["dark", "transparent"])
def test_themes(tmp_path, map_set, theme):
    (path,) = draw.draw_maps(tmp_path, map_set().only(["scale"]), style=Style(theme, dpi=50))
    with Image.open(path) as image:
        corner = image.getpixel((0, 0))
        assert image.mode == ("RGBA" if theme == "transparent" else "RGB")
    assert corner[3] == 0 if theme == "transparent" else max(corner) < 60


def test_note_and_legend_are_on_every_figure(map_set, figure_of, subject):
    figures = drawn_maps(map_set(gauge="published"))
    response = definitions.response(subject["scale"], "z")
    figures["response"] = figure_of(response, picture=Image.new("RGB", (60, 40)))
    for figure in figures.values():
        text = words(figure)
        assert NOTE in text and "who" in text and "early" in text and "left hemisphere" in text
        assert "none" not in text.split(" | ")  # an empty region has no place
    assert all(name in words(figures["layer"]) for name in (*LAYERS, "confidence"))
    assert all("gauge: published" in words(figures[name]) for name in ("layer", "scale"))
    assert "R²" in words(figures["accuracy"]) and "noise ceiling" in words(figures["explained"])
    assert "(z)" in words(figures["response"])


@pytest.mark.parametrize("width", [None, 3.5, 7.2])
@pytest.mark.parametrize("note", [None, NOTE, "a long note on how these responses were computed, " * 4])
def test_texts_do_not_overlap_and_stay_on_the_figure(figure_of, subject, note, width):
    predicted = Predicted(np.zeros(len(subject["R2"])), 1234)
    made = figure_of(definitions.accuracy(subject["R2"] - 0.4, predicted), Style(width=width, dpi=60), note=note)
    made.render()
    texts = [text for text in made.figure.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert all(not one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= made.figure.bbox.x1 and box.y0 >= 0 for box in boxes)


@pytest.mark.parametrize("units", ["", "z-scored percent signal change"])
def test_the_label_of_a_response_stays_below_its_picture(figure_of, subject, units):
    made = figure_of(definitions.response(subject["scale"], units), picture=Image.new("RGB", (40, 60)))
    made.render()
    (label,) = [
        text
        for text in made.figure.findobj(lambda one: hasattr(one, "get_text"))
        if "response" in text.get_text() and text not in made.figure.texts
    ]
    assert label.get_window_extent().x0 >= 0
    assert label.get_window_extent().x1 < made.map.get_window_extent().x0


@pytest.mark.slow
def test_vertices_predicted_no_better_than_chance_are_pale_on_every_map(subject, map_set):
    count = len(subject["scale"])
    half = np.arange(count) < subject["vertices"].n_left

    def coloured_pixels(r, images):
        figures = drawn_maps(map_set(r=r, test_images=images))
        return figures, {name: int(coloured(figure).sum()) for name, figure in figures.items()}

    figures, whole = coloured_pixels(np.full(count, 0.6), None)
    assert "pale:" not in words(figures["layer"])
    assert coloured_pixels(np.full(count, 0.6), 100)[1] == whole
    figures, some = coloured_pixels(np.where(half, 0.6, 0.05), 100)
    assert all("pale:" in words(figure) and "100" in words(figure) for figure in figures.values())
    figures, none = coloured_pixels(np.full(count, 0.05), 100)
    assert all("better than chance" in words(figure) for figure in figures.values())
    for name in ("layer", "location", "scale"):
        assert 0.3 * whole[name] < some[name] < 0.75 * whole[name] and none[name] < 0.1 * whole[name]


def test_a_map_without_anything_reliable_has_no_legend(figure_of, subject):
    unreliable = Predicted(np.ones(len(subject["scale"])), 50)
    figure = figure_of(definitions.scale(subject["scale"], unreliable))
    assert unreliable.none in words(figure) and "global" not in words(figure)


def test_colours_follow_the_data(figure_of, subject):
    count = len(subject["scale"])
    low, opaque = map_pixels(figure_of(definitions.scale(np.full(count, 0.02))))
    high, _ = map_pixels(figure_of(definitions.scale(np.full(count, 0.98))))
    differ = opaque & (np.abs(low - high).max(axis=-1) > 0.2)
    same = opaque & (np.abs(low - high).max(axis=-1) == 0)
    assert differ.sum() > 5000 and same.sum() > 5000  # the data, and the curvature around them
    assert (high[differ].mean(axis=-1) > low[differ].mean(axis=-1)).mean() > 0.99  # global is lighter


def test_negative_accuracy_is_not_the_colour_of_zero(figure_of, subject):
    count = len(subject["R2"])
    zero, negative = np.zeros(count), np.full(count, -0.2)
    zero[-1] = negative[-1] = 0.5
    at_zero, below = (map_pixels(figure_of(definitions.accuracy(values)))[0] for values in (zero, negative))
    assert np.median(np.abs(at_zero - below).max(axis=-1)[np.ptp(below, axis=-1) > 0.1]) > 0.2
    assert "below 0" in words(figure_of(definitions.accuracy(negative)))
    assert "below 0" not in words(figure_of(definitions.accuracy(zero)))


def test_hemispheres_with_opposite_locations_differ(figure_of, subject):
    figure = figure_of(definitions.location(subject["locations"]))
    colours, _ = map_pixels(figure)
    shown = coloured(figure)
    half = shown.shape[1] // 2
    left, right = (colours[:, part][shown[:, part]].mean(axis=0) for part in (slice(0, half), slice(half, None)))
    expected = location_colours(np.array([0.6, -0.6]), np.zeros(2))
    np.testing.assert_allclose([left, right], expected, atol=0.04)


def test_layers_show_their_own_colour(figure_of, subject):
    count = len(subject["scale"])
    for layer, colour in enumerate(layer_palette(3)):
        figure = figure_of(definitions.layer(LAYERS, np.eye(3)[np.full(count, layer)]))
        colours, _ = map_pixels(figure)
        assert (np.abs(colours[coloured(figure)] - colour).max(axis=-1) < 0.02).mean() > 0.9


def test_an_undecided_vertex_is_paler(figure_of, subject):
    count = len(subject["scale"])
    sure = figure_of(definitions.layer(LAYERS, np.eye(3)[np.zeros(count, dtype=int)]))
    unsure = figure_of(definitions.layer(LAYERS, np.tile([0.34, 0.33, 0.33], (count, 1))))
    shown = coloured(sure)
    hue_of_unsure, hue_of_sure = (np.ptp(map_pixels(each)[0], axis=-1)[shown].mean() for each in (unsure, sure))
    assert 0.1 * hue_of_sure < hue_of_unsure < 0.6 * hue_of_sure


def test_vertices_without_value_are_not_painted(figure_of, subject):
    values = subject["R2"].copy()
    whole = coloured(figure_of(definitions.accuracy(values))).sum()
    values[: subject["vertices"].n_left] = np.nan
    values[-1] = np.inf
    figure = figure_of(definitions.accuracy(values))
    shown = coloured(figure)
    half = shown.shape[1] // 2
    assert shown[:, :half].sum() == 0 and 0.3 * whole < shown[:, half:].sum() < 0.7 * whole
    assert "299 of 600" in words(figure)


def test_a_single_hole_shows_and_a_single_vertex_too(figure_of, subject):
    inside = 20
    hole = subject["R2"].copy()
    full = coloured(figure_of(definitions.accuracy(hole))).sum()
    hole[inside] = np.nan
    assert full - coloured(figure_of(definitions.accuracy(hole))).sum() > 50
    alone = np.full(len(hole), np.nan)
    alone[inside] = 0.3
    assert coloured(figure_of(definitions.accuracy(alone))).sum() > 50


@pytest.mark.slow
def test_nothing_to_show_says_so(figure_of, subject):
    empty = np.full(len(subject["R2"]), np.nan)
    for brain_map in (
        definitions.accuracy(empty),
        definitions.explained(empty, empty),
        definitions.layer(LAYERS, np.full((len(empty), 3), np.nan)),
        definitions.location(np.full((len(empty), 2), np.nan)),
        definitions.scale(empty),
        definitions.response(empty),
        definitions.anything("empty", empty),
    ):
        figure = figure_of(brain_map)
        assert "no vertex has a value" in words(figure)
        assert coloured(figure).sum() == 0
        figure.render()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_handful_of_vertices(back, count):
    vertices = Vertices("fsaverage5", back(300).ids[:count])
    maps = MapSet("few", vertices, RoiTable({"one": np.arange(count)}, count), ())
    response = definitions.response(np.ones(count))
    picture = Image.new("RGB", (40, 80))
    MapFigure(maps, response, DEFAULT, 60, picture).render()


@pytest.mark.slow
@pytest.mark.parametrize("space", ["fsaverage6", "fsaverage"])
def test_finer_spaces_are_drawn_on_their_own_mesh(space, back):
    sphere = mesh(space, "left", "sphere")[0]
    near = sphere @ sphere[back(60).left[0]]
    ids = np.flatnonzero(near > np.sort(near)[-400])
    maps = MapSet("", Vertices(space, ids), RoiTable({"all": np.arange(len(ids))}, len(ids)), ())
    figure = MapFigure(maps, definitions.accuracy(np.full(len(ids), 0.4)), DEFAULT, 120)
    assert coloured(figure).sum() > 3000 and len(figure.scene.outlines) >= 1


def test_response_is_symmetric_and_its_picture_whole(figure_of, subject):
    count = len(subject["scale"])
    image = Image.new("RGB", (300, 200), (10, 200, 30))
    plus, minus = (
        figure_of(definitions.response(np.full(count, value), limit=1.0), picture=image) for value in (0.5, -0.5)
    )
    red, blue = (map_pixels(figure)[0][coloured(figure)].mean(axis=0) for figure in (plus, minus))
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.2
    green = np.abs(plus.render().astype(int) - [10, 200, 30]).max(axis=-1) < 3
    assert green.sum() > 30_000  # the photograph is there, and not cropped
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert len(columns) / len(rows) == pytest.approx(1.5, abs=0.03)


HOSTILE = (
    r"cost$\frac$",
    "<script>alert('x')</script>",
    'a "quoted" name',
    "two\nlines",
    "עברית \u202e right",
    "bell\x07",
)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_names_of_any_kind_are_drawn_as_they_are(tmp_path, map_set, subject, kind):
    import xml.etree.ElementTree

    rois = RoiTable(dict.fromkeys(HOSTILE, subject["rois"]["early"]), len(subject["scale"]))
    layers = definitions.layer(HOSTILE[:3], subject["layer_weights"], note=HOSTILE[1])
    maps = map_set(layers, title=" ".join(HOSTILE), note=HOSTILE[1], rois=rois)
    (path,) = draw.draw_maps(tmp_path, maps, style=Style(dpi=50), formats=[kind])
    if kind == "svg":
        tree = xml.etree.ElementTree.parse(path)
        assert not [node for node in tree.iter() if node.tag.endswith("script")]
        assert r"cost$\frac$" in "".join(tree.getroot().itertext())


def test_a_name_that_the_font_lacks_is_drawn_without_a_word(figure_of, subject, recwarn):
    figure_of(definitions.scale(subject["scale"]), title="\u4e2d\u6587.png").render()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_refusals(tmp_path, map_set, subject):
    maps = map_set()
    with pytest.raises(UsageError, match="rois"):
        draw.draw_maps(tmp_path, map_set(rois=RoiTable({}, 3)))
    with pytest.raises(UsageError, match="short"):
        draw.draw_maps(tmp_path, map_set(definitions.anything("short", subject["scale"][1:])))
    with pytest.raises(UsageError, match="layer"):
        maps.only(["lyer"])
    for wrong in ({"theme": "drak"}, {"width": 0.1}, {"dpi": 5}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Style(**wrong)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_half_written(tmp_path, monkeypatch, map_set):
    with pytest.raises(BrainkitError, match="does not exist"):
        draw.draw_maps(tmp_path / "missing", map_set())

    def full_disk(self, file, **options):
        with open(file, "wb") as beside:
            beside.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(BrainkitError, match="No space left"):
        draw.draw_maps(tmp_path, map_set())
    assert list(tmp_path.iterdir()) == []


def test_of_very_many_classes_the_largest_are_listed(figure_of, subject):
    numbers = np.minimum(np.arange(len(subject["scale"])), 299)
    for style in (DEFAULT, Style(width=3.5)):
        found = words(figure_of(definitions.classes("parcels", numbers, [f"p{k}x" for k in range(300)]), style))
        assert "300 classes" in found and "p299x" in found and "p200x" not in found


def test_many_layers_are_one_scale_of_which_some_are_named(figure_of, subject):
    layers = [f"block{k}" for k in range(48)]
    weights = np.eye(48)[np.arange(len(subject["scale"])) % 48]
    figure = figure_of(definitions.layer(layers, weights))
    shown = [name for name in short_names(layers) if name in words(figure).split(" | ")]
    assert {"block0", "block47"} <= set(shown) and 5 < len(shown) < 48


def test_what_a_narrow_figure_says_stands_apart(figure_of, map_set):
    """Ends, numbers and label of the bar below the map, and the foot below these."""
    import matplotlib.text

    for name in ("scale", "accuracy"):
        figure = figure_of(map_set()[name], Style(width=3.5))
        figure.figure.canvas.draw()
        on_map = set(figure.map.findobj(matplotlib.text.Text))
        texts = [text for text in figure.figure.findobj(matplotlib.text.Text) if text.get_text() and text not in on_map]
        boxes = [text.get_window_extent() for text in texts]  # a pixel, of numbers outside of the bar
        boxes, texts = zip(*((box, text) for box, text in zip(boxes, texts, strict=True) if box.width > 1), strict=True)
        for one, other in itertools.combinations(range(len(boxes)), 2):
            said = f"{name}: {texts[one].get_text()!r} on {texts[other].get_text()!r}"
            assert not boxes[one].overlaps(boxes[other]), said


def test_names_of_rois_do_not_stand_on_captions(back):
    """Of small panels, where a name at the lower edge of one would stand on the caption of the next."""
    import matplotlib.text

    vertices = back(1200)
    parts = {f"region {k}": part for k, part in enumerate(np.array_split(np.arange(len(vertices)), 24))}
    scale = definitions.scale(np.zeros(len(vertices)))
    maps = MapSet("", vertices, RoiTable(parts, len(vertices)), (scale,), None)
    figure = MapFigure(maps, scale, Style(width=3.5, view="inflated"), 60)
    figure.figure.canvas.draw()
    names = [text.get_window_extent() for text in figure.map.findobj(matplotlib.text.Text) if text.get_text()]
    captions = [
        text.get_window_extent() for text in figure.figure.texts if text.get_text().startswith(("left", "right"))
    ]
    assert names and len(captions) == 8
    assert not any(name.overlaps(caption) for name in names for caption in captions)


def test_a_strip_of_an_roi_beyond_another_has_its_name_too(back):
    vertices = back(1200)
    surface = average_surface("fsaverage5")
    places = surface.ids_of(vertices)
    left = np.flatnonzero(places < 10242)
    up = surface.left.points["flat"][places[left], 1]
    low, high = np.quantile(up, [0.5, 0.96])
    band = left[(up > low) & (up < high)]
    rest = np.setdiff1d(left, band)
    rois = RoiTable({"band": band, "rest": rest}, len(vertices))
    maps = MapSet("", vertices, rois, (definitions.scale(np.zeros(len(vertices))),), None)
    scene = make_scene(maps, DEFAULT, room=(7.4, 5.5), dpi=60, label_size=9.0)
    assert sorted(label.name for label in scene.labels) == ["band", "rest", "rest"]


def test_figures_but_flatmaps_say_where_the_surface_is_from(figure_of, map_set):
    scale = map_set()["scale"]
    assert "surface: nilearn" in words(figure_of(scale, Style(view="inflated-lateral", width=4)))
    assert "surface:" not in words(figure_of(scale))


def test_long_layer_names_keep_what_differs():
    assert short_names(["a", "b"]) == ["a", "b"]
    assert short_names([f"blocks.{i}.attention.out" for i in range(12)])[11] == "11"
    assert short_names(["x" * 30]) == ["…" + "x" * 13]
    assert all(len(name) <= 14 for name in short_names(["first_very_long_name_a", "second_other_long_name_b"]))


@pytest.mark.slow
def test_unsure_vertices_fade_on_the_map_that_is_unsure(subject, map_set):
    """Large standard errors of depth in the left hemisphere, of location and scale in the right."""
    count, left = len(subject["vertices"]), subject["vertices"].n_left
    depth, scale = np.full(count, 0.01), np.full(count, 0.01)
    depth[:left], scale[left:] = 0.3, 0.3
    uncertainty = MapUncertainty(depth, np.column_stack([scale * 2, scale * 2]), scale, "halves", 8)
    figures = drawn_maps(map_set(test_images=40, uncertainty=uncertainty))
    errors = ["depth-se", "location-se", "scale-se"]
    assert list(figures) == [*(name.removesuffix(".png") for name in FILES), *errors]
    whole = {name: hue_by_side(figure) for name, figure in drawn_maps(map_set(test_images=40)).items()}
    half = MapUncertainty(depth / 6, np.column_stack([scale, scale]) / 3, scale / 6, "halves", 8)
    halfway = {name: hue_by_side(figure) for name, figure in drawn_maps(map_set(uncertainty=half)).items()}
    for name, side in (("scale", 1), ("location", 1)):
        unsure, sure = hue_by_side(figures[name])[[side, 1 - side]] / whole[name][[side, 1 - side]]
        assert 0.2 < unsure < 0.4 and sure > 0.85
        assert 0.5 < halfway[name][side] / whole[name][side] < 0.8
    layer = hue_by_side(figures["layer"])
    assert layer[1] > 2 * layer[0]
    for name in ("layer", "scale", "location"):
        assert "standard error" in words(figures[name]) and "10 %" in words(figures[name])
    for name in errors:
        assert NOTE in words(figures[name]) and "8 runs on halves" in words(figures[name])
    assert "standard error" not in words(figures["accuracy"])
