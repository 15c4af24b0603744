"""``brainkit doctor``."""

from __future__ import annotations

import click


@click.command(
    "doctor",
    epilog="""\b
Example:
  brainkit doctor
""",
)
def command() -> None:
    """Report what this machine can do: devices, installed packages, backends, weights, surfaces, folders."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from brainkit.doctor import examine

    console = Console()
    if not console.is_terminal:
        for found in examine():
            click.echo(f"{found.section:<14}{found.name:<22}{found.state:<9}{found.text}")
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    section = ""
    with console.status("checking this machine"):
        for found in examine():
            if found.section != section:
                section = found.section
                table.add_row(Text(f"\n{section}", style="bold"))
            table.add_row(Text(f"  {found.name}"), Text(*MARKS[found.state]), Text(found.text))
    console.print(table)


MARKS = {"ok": ("ok", "green"), "note": ("--", "dim"), "missing": ("missing", "yellow"), "warning": ("warning", "red")}
