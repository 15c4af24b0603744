"""The page in a browser: what it shows, what it answers, by mouse, by finger and by keyboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import distance, small_picture
from PIL import Image
from small_page import HOSTILE, make_content

from brainkit.cortex.cortical_surface import CorticalSurface, Hemisphere
from brainkit.page import build

pytestmark = pytest.mark.slow
REFERENCES = Path(__file__).resolve().parents[1] / "data" / "page"
NO_REGIONS = "#regions=0"
NO_WEBGL = "HTMLCanvasElement.prototype.getContext = function () { return null; };"


def vertex_in_view(tab, content, *, right=False):
    """A vertex with data that faces the viewer, nearest to the middle of the data."""
    ids = [int(each) for each in content.maps.vertices.ids if (each >= 10_242) == right]
    places = tab.run("ids => ids.map((id) => brainkit.place(id))", ids)
    facing = [(place["facing"], vertex) for place, vertex in zip(places, ids, strict=True) if place["hidden"] == 0]
    return max(facing)[1]


def click(tab, vertex):
    place = tab.run("id => brainkit.place(id)", vertex)
    tab.page.mouse.click(place["x"], place["y"])
    tab.rest()


def test_the_page_is_ready_and_names_its_maps(open_tab, page_file):
    tab = open_tab(page_file)
    assert tab.state == "ready"
    assert tab.run("brainkit.maps") == ["response", "accuracy", "explained", "layer", "location", "scale"]
    assert tab.page.title() == "A subject"
    assert tab.page.inner_text("#note") == "SIMULATED"


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("flat", [0, 1])
def test_a_click_on_a_vertex_tells_what_is_known_of_it(open_tab, page_file, content, right, flat):
    tab = open_tab(page_file)
    tab.run("([flat]) => brainkit.view({ flat })", [flat])
    vertex = vertex_in_view(tab, content, right=right)
    click(tab, vertex)
    assert tab.run("brainkit.picked()") == vertex
    told = tab.run("id => brainkit.pick(id)", vertex)
    row = int(np.searchsorted(content.maps.vertices.ids, vertex))
    assert told["hemisphere"] == ("right" if right else "left")
    assert told["rois"] == [name for name, members in content.maps.rois.items() if row in members]
    weights = content.maps["layer"].values[row]
    assert told["values"]["layer"] == ("early", "middle", "late")[weights.argmax()]
    assert told["values"]["accuracy"] == pytest.approx(content.maps["accuracy"].values[row], abs=1e-3)
    assert told["values"]["location"] == pytest.approx(content.maps["location"].values[row], abs=2e-3)
    assert told["values"]["noise ceiling"] == pytest.approx(0.6)
    assert told["values"]["response"] == pytest.approx(content.photographs.responses[0, row], abs=0.01)
    assert f"{vertex:,}" in tab.page.inner_text("#card")
    assert f"{vertex:,}" in tab.page.inner_text("#said")


def test_unknown_values_are_told_as_unknown(open_tab, page_file, content):
    tab = open_tab(page_file)
    without = int(content.maps.vertices.ids[5])
    assert tab.run("id => brainkit.pick(id)", without)["values"]["accuracy"] is None
    outside = int(np.setdiff1d(np.arange(20_484), content.maps.vertices.ids)[0])
    told = tab.run("id => brainkit.pick(id)", outside)
    assert set(told["values"].values()) == {None}
    assert told["rois"] == []


def test_a_vertex_behind_the_brain_is_not_clicked(open_tab, page_file, content):
    tab = open_tab(page_file)
    tab.run("brainkit.view({ side: 'posterior' })")
    hidden = next(
        int(each) for each in range(20_484) if tab.page.evaluate("id => brainkit.place(id).facing", int(each)) < -0.9
    )
    click(tab, hidden)
    assert tab.run("brainkit.picked()") != hidden


def test_the_slider_flattens(open_tab, page_file, content):
    tab = open_tab(page_file)
    ids = [int(each) for each in content.maps.vertices.ids[::25]]
    depth = "ids => ids.map((id) => brainkit.place(id).facing)"
    assert np.std(tab.run(depth, ids)) > 0.05
    before = tab.picture()
    box = tab.page.locator("#shape").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    tab.rest()
    assert tab.run("brainkit.view()")["flat"] == pytest.approx(1)
    assert np.std(tab.run(depth, ids)) < 0.03  # all face the same way
    assert distance(small_picture(before), small_picture(tab.picture())) > 5
    tab.page.get_by_role("button", name="Inflated").click()
    tab.rest()
    assert tab.run("brainkit.view()") == {"inflate": 1, "flat": 0, "sphere": 0}


def test_the_keyboard_alone_suffices(open_tab, page_file):
    tab = open_tab(page_file)
    keyboard = tab.page.keyboard
    keyboard.press("f")
    tab.rest()
    assert tab.run("brainkit.view()")["flat"] == 1
    keyboard.press("5")
    tab.rest()
    start = tab.run("brainkit.place(100)")
    keyboard.press("ArrowRight")
    tab.rest()
    assert abs(tab.run("brainkit.place(100)")["x"] - start["x"]) > 1
    keyboard.press("+")
    keyboard.press("Shift+ArrowUp")
    tab.rest()
    keyboard.press("r")
    tab.rest()
    assert tab.run("brainkit.place(100)") == pytest.approx(start, abs=1e-3)
    keyboard.press("m")
    tab.rest()
    assert tab.page.locator("#maps input:checked").input_value() == "accuracy"
    keyboard.press("1")
    keyboard.press("Enter")
    tab.rest()
    # In the lateral view, the middle of the stage may be beside the brain; a region is found by its name.
    reached = set()
    for _ in range(60):
        keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if tab.page.evaluate("document.activeElement.id") == "wanted":
            break
    keyboard.type("v1")
    keyboard.press("Enter")
    tab.rest()
    first = tab.run("brainkit.picked()")
    assert first >= 0
    for _ in range(60):
        keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if tab.page.evaluate("document.activeElement.id") == "overlay":
            break
    keyboard.press("Alt+ArrowLeft")
    tab.rest()
    second = tab.run("brainkit.picked()")
    assert second not in (first, -1)
    keyboard.press("Escape")
    assert tab.page.locator("#card").is_hidden()
    for _ in range(60):
        keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"overlay", "shape", "reset", "picture", "link", "theme", "wanted", "next", "Lateral", "Flat"} <= reached


def test_enter_finds_a_vertex_where_the_middle_is_beside_the_brain(open_tab, page_file):
    """From the back and flat, the gap between the hemispheres is there."""
    tab = open_tab(page_file)
    for shape in ("inflated", "flat"):
        tab.page.keyboard.press("Enter")
        tab.rest()
        assert tab.run("brainkit.picked()") >= 0, shape
        tab.page.keyboard.press("Escape")
        assert tab.page.locator("#card").is_hidden()
        tab.page.keyboard.press("f")
        tab.rest()


def test_keys_work_after_a_control_was_used(open_tab, page_file):
    tab = open_tab(page_file)
    tab.page.locator("#maps label").last.click()
    tab.page.keyboard.press("f")
    tab.rest()
    assert tab.run("brainkit.view()")["flat"] == 1
    tab.page.locator("#wanted").click()
    tab.page.keyboard.type("frm")
    tab.rest()
    assert tab.run("brainkit.view()")["flat"] == 1 and tab.page.locator("#wanted").input_value() == "frm"


def test_every_control_has_a_name(open_tab, page_file):
    tab = open_tab(page_file)
    unnamed = tab.run(
        """[...document.querySelectorAll("button, input, select, summary")].filter((each) => !each.textContent.trim()
        && !each.getAttribute("aria-label") && !(each.labels && each.labels.length)).map((each) => each.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_tab, page_file, theme):
    tab = open_tab(page_file, color_scheme=theme)
    colours = tab.run(
        """() => Object.fromEntries(["ground", "panel", "raised", "ink", "faint", "warn", "accent", "on-accent"].map(
        (name) => [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]))"""
    )

    def luminance(name):
        share = np.array([int(colours[name][i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    pairs = [(text, ground) for text in ("ink", "faint", "warn") for ground in ("ground", "panel", "raised")]
    for pair in [*pairs, ("on-accent", "accent")]:
        assert contrast(*pair) >= 4.5, pair


def test_a_finger_turns_and_a_tap_reads(open_tab, page_file, content):
    tab = open_tab(page_file, has_touch=True, viewport={"width": 390, "height": 844})
    vertex = vertex_in_view(tab, content)
    place = tab.run("id => brainkit.place(id)", vertex)
    tab.page.touchscreen.tap(place["x"], place["y"])
    tab.rest()
    assert tab.run("brainkit.picked()") == vertex
    width = tab.run("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


def test_the_address_restores_the_view(open_tab, page_file, content):
    tab = open_tab(page_file)
    vertex = vertex_in_view(tab, content)
    tab.run("brainkit.show('layer'); brainkit.view({ side: 'dorsal', inflate: 0.4 })")
    tab.run("id => brainkit.pick(id)", vertex)
    tab.page.locator("#beside").evaluate("each => { each.value = 'scale'; each.dispatchEvent(new Event('change')); }")
    tab.rest()
    there = "id => [brainkit.place(id), brainkit.view(), brainkit.picked()]"
    other = open_tab(page_file, hash="#" + tab.page.url.partition("#")[2])
    assert other.page.locator("#maps input:checked").input_value() == "layer"
    assert other.page.locator("#beside").input_value() == "scale"
    one, two = tab.run(there, vertex), other.run(there, vertex)
    assert two[0] == pytest.approx(one[0], abs=0.5)
    assert two[1:] == [pytest.approx(one[1]), vertex]


@pytest.mark.parametrize("wrong", ["#map=none&turn=1,2&zoom=1e99&vertex=-4", "#shape=NaN&least=a,b", "#%E0%A4%A", "#="])
def test_a_wrong_address_does_no_harm(open_tab, page_file, wrong):
    tab = open_tab(page_file, hash=wrong)
    assert tab.state == "ready"
    assert tab.run("brainkit.picked()") == -1


def test_photographs_are_stepped_through(open_tab, page_file, content):
    tab = open_tab(page_file)
    vertex = int(content.maps.vertices.ids[10])
    tab.page.get_by_role("button", name="Next photograph").click()
    assert "b.png" in tab.page.inner_text("#photograph-name")
    value = tab.run("id => brainkit.pick(id)", vertex)["values"]["response"]
    assert value == pytest.approx(content.photographs.responses[1, 10], abs=0.01)


def test_thresholds_and_chance_hide(open_tab, page_file):
    tab = open_tab(page_file, hash="#map=accuracy&regions=0")
    whole = tab.picture()
    tab.page.locator("#chance").evaluate("each => each.click()")
    sure = tab.picture()
    slider = "each => { each.value = each.max; each.dispatchEvent(new Event('input')); }"
    tab.page.locator("#threshold").evaluate(slider)
    none = tab.picture()
    colourful = [int((np.ptp(each.astype(int), axis=2) > 40).sum()) for each in (whole, sure, none)]
    assert colourful[0] > colourful[1] > 100 > colourful[2]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("inflated-layer", "brainkit.show('layer'); brainkit.view({ side: 'posterior' })"),
        ("flat-location", "brainkit.show('location'); brainkit.view({ side: 'flat' })"),
        ("folded-accuracy", "brainkit.show('accuracy'); brainkit.view({ side: 'ventral', inflate: 0 })"),
        ("lateral-response", "brainkit.show('response'); brainkit.view({ side: 'lateral' })"),
    ],
)
def test_fixed_views_look_as_they_did(open_tab, page_file, name, script):
    tab = open_tab(page_file, hash=NO_REGIONS)
    tab.run(script)
    picture = small_picture(tab.picture())
    reference = REFERENCES / f"{name}.png"
    if not reference.exists():
        reference.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(reference)
        pytest.fail(f"{reference} was missing and has been made; look at it")
    assert distance(picture, np.asarray(Image.open(reference).convert("RGB"))) < 2


def test_the_references_tell_views_apart():
    references = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(REFERENCES.glob("*.png"))]
    assert len(references) == 4
    for i, one in enumerate(references):
        for other in references[:i]:
            assert distance(one, other) > 4


def test_a_picture_is_saved(open_tab, page_file, tmp_path):
    tab = open_tab(page_file, accept_downloads=True)
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Picture").click()
    download.value.save_as(tmp_path / "picture.png")
    picture = Image.open(tmp_path / "picture.png")
    assert picture.width > 1000
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 500


def test_texts_of_any_kind_are_shown_as_they_are(open_tab, tmp_path):
    roi = HOSTILE.replace("\n", " ")
    page = make_content(HOSTILE, HOSTILE, (HOSTILE, "b", "c"), roi, (HOSTILE, "b", "c"))
    path = tmp_path / 'a "strange" <name>.html'
    path.write_text(build(page), encoding="utf-8")
    tab = open_tab(path)
    assert tab.state == "ready"
    tab.run("brainkit.show('layer')")
    row = int(page.maps.rois[roi][0])
    assert tab.run("id => brainkit.pick(id)", int(page.maps.vertices.ids[row]))["rois"] == [roi]
    assert tab.page.locator("#title").text_content() == HOSTILE
    assert tab.run("window.hacked === undefined")


def test_no_request_is_possible(browser, page_file):
    from chromium import Tab

    tab = Tab(browser, page_file)
    tried = tab.run("fetch('https://example.invalid/').then(() => 'sent', () => 'refused')")
    assert tried == "refused"
    assert any("Content Security Policy" in error for error in tab.errors)
    tab.close()


def test_without_webgl2_it_shows_still_pictures_and_says_why(open_tab, page_file):
    tab = open_tab(page_file, init=NO_WEBGL)
    assert tab.state == "failed"
    assert "WebGL2" in tab.page.inner_text("#why")
    assert tab.page.locator(".fallback img").is_visible()
    assert tab.page.locator("#app").is_hidden()


def test_without_scripts_it_shows_still_pictures(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator(".fallback img").is_visible()
    context.close()


def test_a_surface_of_ones_own_without_a_flatmap(open_tab, content, tmp_path):
    halves = [
        Hemisphere({"pial": half.points["pial"]}, half.faces, np.empty((0, 3), np.int32), half.curvature)
        for half in (content.surface.left, content.surface.right)
    ]
    own = replace(content, surface=CorticalSurface("mine", "fsaverage5", *halves))
    path = tmp_path / "own.html"
    path.write_text(build(own), encoding="utf-8")
    tab = open_tab(path)
    assert tab.state == "ready"
    assert tab.page.locator("#shape").is_hidden()
    vertex = vertex_in_view(tab, content)
    click(tab, vertex)
    assert tab.run("brainkit.picked()") == vertex
