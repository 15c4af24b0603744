"""A page in headless Chromium, for tests: waiting by polling, requests and errors kept."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

FLAGS = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--ignore-gpu-blocklist", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)
NO_WAIT_LIMIT = 0  # milliseconds; Playwright's name for none: the machine may be busy


def chromium_program() -> str:
    """The program; the test is skipped where it or Playwright is missing."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return program


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    program = chromium_program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=program, headless=True, args=list(FLAGS), timeout=NO_WAIT_LIMIT
        )
        yield browser
        browser.close()


class Tab:
    """A page of ours, opened from disk."""

    def __init__(self, browser: Any, path: Path, *, hash: str = "", init: str = "", **options: Any) -> None:
        options = {"viewport": {"width": 900, "height": 640}, "color_scheme": "light", **options}
        self.context = browser.new_context(reduced_motion="reduce", **options)
        self.context.set_default_timeout(NO_WAIT_LIMIT)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        if init:
            self.context.add_init_script(init)
        self.page.goto(path.as_uri() + hash)
        self.page.wait_for_selector("html:not([data-state=loading])", state="attached")

    @property
    def state(self) -> str:
        return str(self.page.evaluate("document.documentElement.dataset.state"))

    def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate a script that may use `brainkit`, and wait until the page has drawn what follows from it."""
        found = self.page.evaluate(script, argument)
        self.rest()
        return found

    def rest(self) -> None:
        self.page.evaluate("brainkit.rest()")

    def picture(self) -> np.ndarray:
        """The cortex, without what lies over it. (H, W, 3) uint8."""
        self.rest()
        show = """visibility => document.querySelectorAll(".bar, .shape, .card, #labels").forEach((each) => {
            each.style.visibility = visibility; })"""
        self.page.evaluate(show, "hidden")
        shot = self.page.locator("#cortex").screenshot(timeout=NO_WAIT_LIMIT)
        self.page.evaluate(show, "")
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def left_the_page(self) -> list[str]:
        """Requests that went elsewhere than to the file and to what it holds."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def close(self) -> None:
        self.context.close()


def small_picture(pixels: np.ndarray) -> np.ndarray:
    """A picture as a reference stores it. (H, W, 3) uint8."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((150, round(150 * image.height / image.width)), Image.Resampling.BOX))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """How different two small pictures look: the mean distance in CIELAB after a blur. 2 is just noticeable.

    The blur leaves out what drivers do differently: how edges are softened.
    """
    blurred = [Image.fromarray(each).filter(ImageFilter.GaussianBlur(1.5)) for each in (one, other)]
    return float(np.linalg.norm(np.subtract(*(_lab(np.asarray(each)) for each in blurred)), axis=-1).mean())


def _lab(pixels: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB, white D65."""
    share = pixels / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
