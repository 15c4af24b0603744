"""A contact sheet: the images that drive a region most, and least, with their means. Drawn with Pillow only."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from brainkit.errors import BrainkitError
from brainkit.images import decode
from brainkit.predict.top_images.ranking import Ranked, Ranking
from brainkit.utils.file_names import PART, file_stem
from brainkit.utils.files import atomic_write
from brainkit.utils.own_figures import SHEET, figure_mark
from brainkit.utils.text import plural

_INK, _FAINT, _WARN, _LINE, _BED = "#1b1f24", "#68717d", "#a63c06", "#d9dde2", "#f1f3f5"
_HIGH, _LOW = "#b2182b", "#2166ac"  # the ends of the maps' colours
_TILE, _GAP, _EDGE = 232, 24, 56  # pixels
_CAPTION = 84
_MOST_COLUMNS, _LEAST_COLUMNS = 6, 3
_LATIN = frozenset(map(chr, range(32, 127))) | {"·", "…"}  # letters that Pillow's own font certainly has
_NO_LETTER = "\uffff"  # in no font
# System fonts for names in other scripts; Pillow knows where each system keeps them.
_OTHERS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "segoeui.ttf", "arial.ttf")


def sheet_name(region: str) -> str:
    """The ending of a sheet's file name: ``-top-FFA.png``."""
    return f"{SHEET}{file_stem(region, PART)}.png"


def draw_contact_sheet(
    path: Path,
    ranking: Ranking,
    *,
    source: str,
    units: str = "",
    note: str | None = None,
    opener: Callable[[Any], Image.Image] = decode,
) -> Path:
    """Draw the images of a ranking.

    Parameters
    ----------
    path : Path
        The PNG file; its folder must exist.
    ranking : Ranking
    source : str
        What predicts, for example the backbone's name.
    units : str
    note : str, optional
        Printed on the sheet in a signal colour, for example that the subject is simulated.
    opener : callable
        Opens ``Ranked.image``, by default a path. An image that can no longer be opened leaves its tile empty, and the
        sheet says so.

    Returns
    -------
    Path
    """
    columns = _columns(max(len(ranking.highest), len(ranking.lowest)))
    width = 2 * _EDGE + columns * _TILE + (columns - 1) * _GAP
    room = width - 2 * _EDGE
    sections = [("highest predicted response", _HIGH, ranking.highest)]
    if ranking.lowest:
        sections.append(("lowest predicted response", _LOW, ranking.lowest))
    heights = [48 + math.ceil(len(ranked) / columns) * (_TILE + _CAPTION) for _, _, ranked in sections]
    head = 150 + (28 if note else 0)
    legend = _legend(ranking, units, room)
    height = head + sum(heights) + 30 + 22 * max(1, len(legend))
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)

    _draw_head(pen, ranking, source, note, room)
    top = head
    for (title, colour, ranked), section_height in zip(sections, heights, strict=True):
        _write(pen, (_EDGE, top + 18), title, 20, colour, room)
        pen.line((_EDGE, top + 30, width - _EDGE, top + 30), fill=_LINE, width=1)
        for index, one in enumerate(ranked):
            row, column = divmod(index, columns)
            x, y = _EDGE + column * (_TILE + _GAP), top + 48 + row * (_TILE + _CAPTION)
            _draw_tile(sheet, pen, (x, y), one, ranking, colour, opener)
        top += section_height
    for line, text in enumerate(legend):
        _write(pen, (_EDGE, height - 30 - 22 * (len(legend) - 1 - line)), text, 15, _FAINT, room)
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True, pnginfo=figure_mark())
    return path


def _columns(tiles: int) -> int:
    """How many tiles stand in a row: rows of about the same length look better than a single tile left over."""
    if tiles > _MOST_COLUMNS:
        return math.ceil(tiles / math.ceil(tiles / _MOST_COLUMNS))
    return max(_LEAST_COLUMNS, tiles)


def _draw_head(pen: ImageDraw.ImageDraw, ranking: Ranking, source: str, note: str | None, room: int) -> None:
    title = f"{ranking.region}: the images that drive it most" + (", and least" if ranking.lowest else "")
    _write(pen, (_EDGE, 66), title, 34, _INK, room)
    facts = [plural(ranking.images, "image"), "mean over " + plural(ranking.vertices, "vertex", "vertices"), source]
    _write(pen, (_EDGE, 100), "  ·  ".join(fact for fact in facts if fact), 18, _FAINT, room)
    if note:
        _write(pen, (_EDGE, 130), note, 18, _WARN, room)


def _draw_tile(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    one: Ranked,
    ranking: Ranking,
    colour: str,
    opener: Callable[[Any], Image.Image],
) -> None:
    x, y = corner
    pen.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), fill=_BED)
    try:
        image = opener(one.image)
    except (BrainkitError, OSError):
        pen.text((x + _TILE / 2, y + _TILE / 2), "can no longer be read", _FAINT, _font(15), anchor="mm")
    else:
        fit = _TILE / max(image.size)
        size = (max(1, round(image.width * fit)), max(1, round(image.height * fit)))
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        sheet.paste(small, (x + (_TILE - size[0]) // 2, y + (_TILE - size[1]) // 2))
    pen.text((x, y + _TILE + 27), str(one.rank), colour, _font(22), anchor="ls")
    pen.text((x + _TILE, y + _TILE + 27), _number(one.mean, ranking), _INK, _font(22), anchor="rs")
    if _has_bar(ranking):
        every = (*ranking.highest, *ranking.lowest)  # all bars of a sheet have the same length
        left = x + 12 + max(_width(str(other.rank)) for other in every)
        right = x + _TILE - 12 - max(_width(_number(other.mean, ranking)) for other in every)
        _draw_bar(pen, left, right, y + _TILE + 19, one.mean, ranking, colour)
    _write(pen, (x, y + _TILE + 52), Path(one.name).name, 15, _FAINT, _TILE)


def _draw_bar(
    pen: ImageDraw.ImageDraw, left: int, right: int, y: int, mean: float, ranking: Ranking, colour: str
) -> None:
    """A bar from the mean of all images to this one's, on a line from the lowest mean to the highest."""
    low, high = ranking.lowest[0].mean, ranking.highest[0].mean
    at, middle = (left + round((value - low) / (high - low) * (right - left)) for value in (mean, ranking.mean))
    pen.rectangle((left, y - 2, right, y + 2), fill="#e6e9ed")
    pen.rectangle((min(at, middle), y - 2, max(at, middle), y + 2), fill=colour)
    pen.rectangle((middle - 1, y - 6, middle, y + 6), fill=_INK)


def _has_bar(ranking: Ranking) -> bool:
    return bool(ranking.lowest) and ranking.highest[0].mean > ranking.lowest[0].mean


def _legend(ranking: Ranking, units: str, room: int) -> list[str]:
    """What numbers and bars mean, on one line if it fits."""
    of_numbers = [f"mean predicted response ({units})"] if units else []
    of_bars = ["line: from the lowest image to the highest; tick: the mean of all"] if _has_bar(ranking) else []
    together = "  ·  ".join(of_numbers + of_bars)
    return [together] if together and _font(15).getlength(together) <= room else of_numbers + of_bars


def _width(text: str) -> int:
    return math.ceil(_font(22).getlength(text))


def _number(mean: float, ranking: Ranking) -> str:
    spread = ranking.sd if math.isfinite(ranking.sd) and ranking.sd > 0 else max(abs(mean), 1.0)
    decimals = min(8, max(2, 1 - math.floor(math.log10(spread))))
    return f"{mean:.{decimals}f}"


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, room: float) -> None:
    """One line of text on its baseline, shortened in its middle if it is too long."""
    clean, font = _drawable(" ".join(text.split()), size)
    if font.getlength(clean) > room:
        keep = len(clean)
        while keep > 2 and font.getlength(_cut(clean, keep)) > room:
            keep -= 1
        clean = _cut(clean, keep)
    pen.text(at, clean, colour, font, anchor="ls")


def _cut(text: str, keep: int) -> str:
    last = keep // 2
    return f"{text[: keep - last]}…{text[len(text) - last :]}"


def _drawable(text: str, size: int) -> tuple[str, Any]:
    """The text, and a font that has its letters; a question mark replaces each letter that no font has."""
    if _LATIN.issuperset(text):
        return text, _font(size)
    other = _other_font(size)
    if other is not None:
        none = other.getmask(_NO_LETTER)
        return "".join(
            letter if letter.isprintable() and (letter in _LATIN or not _same(other.getmask(letter), none)) else "?"
            for letter in text
        ), other
    return "".join(letter if letter in _LATIN else "?" for letter in text), _font(size)


def _same(one: Any, other: Any) -> bool:
    """Whether two letters look the same: as the box that a font draws for letters it lacks."""
    return one.size == other.size and bytes(one) == bytes(other)


@functools.lru_cache(maxsize=16)
def _font(size: int) -> Any:
    # That of all other figures, where matplotlib is installed, which is not imported for it.
    spec = importlib.util.find_spec("matplotlib")
    file = Path(spec.origin or "").parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if spec else None
    return ImageFont.truetype(file, size) if file is not None and file.is_file() else ImageFont.load_default(size)


@functools.lru_cache(maxsize=16)
def _other_font(size: int) -> Any:
    for name in _OTHERS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return None
