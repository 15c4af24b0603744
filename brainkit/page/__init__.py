"""Pages, one HTML file each: maps on a cortex to turn and flatten, and reports. README.md says which file does what."""

from brainkit.page.build import build
from brainkit.page.content import Fact, PageContent, Photographs, Still

__all__ = ["Fact", "PageContent", "Photographs", "Still", "build"]
