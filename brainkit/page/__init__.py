"""Pages: maps on a cortex to turn, inflate and flatten, and reports; one HTML file each. README.md says which file does what."""

from brainkit.page.build import build
from brainkit.page.content import Fact, PageContent, Photographs, Still

__all__ = ["Fact", "PageContent", "Photographs", "Still", "build"]
