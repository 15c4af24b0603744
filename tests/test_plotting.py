"""`brainkit.plot`, and what objects show in a notebook."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import brainkit
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.errors import DataError, MissingDependency, UsageError
from brainkit.maps.brain_map import MapSet
from brainkit.maps.catalog import trained_maps
from brainkit.utils.notebook import card

pytest.importorskip("matplotlib")
pytest.importorskip("nilearn")
V = 400


@pytest.fixture(scope="module")
def maps():
    vertices = Vertices("fsaverage5", np.arange(V))
    found = trained_maps(
        layers=("a", "b"),
        layer_weights=np.full((V, 2), 0.5),
        locations=np.zeros((V, 2)),
        scale=np.linspace(0, 1, V),
    )
    return MapSet("who", vertices, RoiTable({"early": np.arange(50), "V1v": np.arange(9)}, V), found, "NOTE")


def texts(figure):
    import matplotlib.text

    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_values_on_vertices_show_themselves(maps):
    from matplotlib.figure import Figure

    sys.modules.pop("matplotlib.pyplot", None)
    figure = brainkit.plot(np.linspace(0, 1, V), maps, title="mine", label="mm", size=4, dpi=50)
    assert isinstance(figure, Figure) and figure.get_figwidth() == 4
    assert {"mine", "mm", "early", "NOTE"} <= set(texts(figure)) and "who" not in " ".join(texts(figure))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_a_map_by_its_name_and_the_regions_chosen(maps):
    figure = brainkit.plot("layer", maps, rois=["early"], theme="dark", dpi=50)
    assert {"who: preferred layer", "a", "b", "early"} <= set(texts(figure)) and "V1v" not in texts(figure)
    own = brainkit.plot("scale", maps, rois={"mine": np.arange(100)}, dpi=50)
    assert "mine" in texts(own) and "early" not in texts(own)
    assert "early" not in texts(brainkit.plot("scale", maps, rois=[], dpi=50))


def test_rows_are_a_grid_with_one_bar(maps):
    figure = brainkit.plot(np.random.default_rng(0).standard_normal((3, V)), maps, title=("x", "y", "z"), dpi=50)
    assert {"x", "y", "z"} <= set(texts(figure))
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == 3 and len(figure.axes) == 4


def test_classes_and_locations(maps):
    classes = brainkit.plot(np.arange(V) % 2, maps, kind="categorical", labels=("x", "y"), label="kind", dpi=50)
    assert {"x", "y", "kind"} <= set(texts(classes))
    location = brainkit.plot(np.zeros((V, 2)), maps, kind="location", dpi=50)
    assert "the image" in texts(location)


@pytest.mark.parametrize("what", ["scale", "layer", "location"])
def test_a_map_in_axes_of_ones_own(maps, what):
    from matplotlib.figure import Figure

    figure = Figure((6, 3), dpi=50)
    left, right = figure.subplots(1, 2)
    right.plot([1, 2])
    assert brainkit.plot(what, maps, ax=left) is figure
    assert left.images and left.get_aspect() == 1 and not right.images
    figure.savefig(Path("/dev/null"), format="png")
    bare = Figure((3, 3), dpi=50)
    brainkit.plot("scale", maps, ax=bare.subplots(), colorbar=False)
    assert len(bare.axes) == 1


def test_whole_spaces_and_other_views():
    figure = brainkit.plot(np.ones(2 * 10242), "fsaverage5", view="inflated-lateral-left", size=3, dpi=40)
    assert any("inflated" in text for text in texts(figure)) and "left lateral" in texts(figure)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros(V - 1), {}, "shape"),
        (np.zeros(2 * 10242), {}, "fsaverage5"),
        (np.zeros((V, 3)), {"kind": "location"}, "shape"),
        (np.zeros(V), {"kind": "other"}, "kind"),
        (np.zeros(V), {"rois": "erly"}, "early"),
        (np.zeros(V), {"cmap": "virids"}, "viridis"),
        (np.zeros(V), {"vmin": 2, "vmax": 1}, "vmin"),
        (np.zeros(V), {"theme": "drak"}, "dark"),
        (np.zeros(V), {"size": "huge"}, "size"),
        (np.zeros(V), {"view": "infalted"}, "inflated"),
        (np.array(["a"] * V), {}, "numbers"),
        ("lyer", {}, "layer"),
    ],
)
def test_refusals(maps, values, options, message):
    with pytest.raises(UsageError, match=message):
        brainkit.plot(values, maps, **options)


def test_what_cannot_be_drawn_on(maps, tmp_path):
    with pytest.raises(UsageError, match="on"):
        brainkit.plot(np.zeros(3), 3)
    with pytest.raises(DataError):
        brainkit.plot(np.zeros(3), tmp_path / "none")
    with pytest.raises(UsageError, match="surface"):
        brainkit.plot(np.zeros(3), Vertices.custom(3))


def test_without_matplotlib_the_pip_line(maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[maps\]"):
        brainkit.plot("layer", maps)


def test_cards_escape_and_do_without_a_picture():
    def fails():
        raise MissingDependency("no matplotlib")

    text = card("<script>", {"note": '"<b>"', "empty": "", "none": None}, fails)
    assert "<script>" not in text and "<b>" not in text and "<img" not in text
    assert "empty" not in text and "none" not in text


def test_an_evaluation_shows_its_map_where_vertices_are_known():
    draw = np.random.default_rng(0)
    found = brainkit.evaluate(draw.random((12, V)), draw.random((12, V)), bootstrap=0, permutations=0)
    assert "<img" not in found._repr_html_() and "median" in found._repr_html_()
    known = dataclasses.replace(found, vertices=Vertices("fsaverage5", np.arange(V)))
    assert re.search(r"<img src='data:image/png;base64,\w{100}", known._repr_html_())
    assert known.to_dict() == found.to_dict()


@pytest.mark.parametrize("options", [{"smoothing": "a"}, {"smoothing": 1.5}, {"dpi": "x"}, {"dpi": True}])
def test_options_of_a_wrong_type_are_one_line(maps, options):
    (name,) = options
    with pytest.raises(UsageError, match=name):
        brainkit.plot("scale", maps, **options)
