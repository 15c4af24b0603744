"""A small page, a browser, and pages open in it."""

from __future__ import annotations

import pytest
from chromium import Tab, chromium
from small_page import make_content

from brainkit.page import build


@pytest.fixture(scope="session")
def content():
    return make_content()


@pytest.fixture(scope="session")
def page_file(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "cortex.html"
    path.write_text(build(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def open_tab(browser):
    """Opens pages; at the end, none of them may have shown an error or made a request."""
    tabs = []

    def open_page(path, **options):
        tabs.append(Tab(browser, path, **options))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()
        assert tab.errors == []
        assert tab.left_the_page() == []
