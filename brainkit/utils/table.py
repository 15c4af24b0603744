"""Small tables of results: built once as cells, then shown as plain text or styled for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Table:
    """A table whose first column holds names and whose other columns hold numbers.

    Attributes
    ----------
    title : str
    header : tuple of str
        Column names.
    rows : tuple of tuple of str
        The cells, formatted.
    notes : tuple of str
        Lines below the table.
    bold : int, optional
        Index of the row that stands for the whole, if any.
    """

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    bold: int | None = None

    def plain(self) -> list[str]:
        """The table as lines of plain text, its columns aligned."""
        cells = [self.header, *self.rows] if self.rows else []
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for name, *numbers in cells:
            aligned = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *aligned]))
        return [self.title, *(f"  {line}" for line in (*lines, *self.notes))]


def styled(tables: Iterable[Table]) -> str:
    """Tables as text with the escape codes of a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=io.StringIO(), force_terminal=True, width=WIDTH, highlight=False)
    for table in tables:
        if table.rows:
            shown = RichTable(
                title=Text(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style=""
            )
            for column, name in enumerate(table.header):
                shown.add_column(Text(name), justify="right" if column else "left", overflow="ellipsis")
            bold = None if table.bold is None else range(len(table.rows))[table.bold]
            for number, row in enumerate(table.rows):
                # As Text: names of ROIs come from files and must not be read as markup.
                shown.add_row(*map(Text, row), style="bold" if number == bold else "")
            console.print(shown)
        for note in table.notes:
            console.print(f"  {note}", markup=False, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def number(value: float | None, form: str) -> str:
    """A number in a format, or a dash where there is none."""
    return "-" if value is None else format(value, form)
