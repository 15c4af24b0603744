"""``brainkit cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from brainkit.utils.text import format_bytes

if TYPE_CHECKING:
    from brainkit.features.manage import StoreReport


@click.group(
    "cache",
    invoke_without_command=True,
    epilog="""\b
Examples:
  brainkit cache list
  brainkit cache verify
  brainkit cache prune --older-than 30d --dry-run
""",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, check and prune the tokens kept on disk, in $BRAINKIT_CACHE/tokens.

    Whatever is removed is made again when it is needed.
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError("say what to do: list, verify or prune", ctx=ctx)


@command.command(
    "list",
    epilog="""\b
Example:
  brainkit cache list
""",
)
def list_() -> None:
    """Say which token stores there are, the one used last first."""
    import time

    from brainkit.features.manage import list_stores

    stores = list_stores()
    if not stores:
        click.echo("no token stores")
        return
    click.echo(f"{'store':<10}{'backbone':<32}{'layers':>7}{'grid':>7}{'images':>9}{'size':>10}  {'last used':<18}")
    for store in stores:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used))
        notes = "; ".join(filter(None, [_kind(store), "in use" if store.busy else "", store.trouble]))
        kind = store.kind
        name, layers, grid = ("-", "-", "-") if kind is None else (kind.backbone, len(kind.layers), _grid(kind.grid))
        short = name if len(name) < 32 else f"...{name[-28:]}"
        click.echo(
            f"{store.name[:8]:<10}{short:<32}{layers:>7}{grid:>7}{store.images:>9,}{format_bytes(store.nbytes):>10}  "
            f"{used:<18}{notes}".rstrip()
        )
    click.echo(f"{len(stores)} stores, {format_bytes(sum(store.nbytes for store in stores))}")


@command.command(
    epilog="""\b
Examples:
  brainkit cache verify
  brainkit cache verify 3f9a1c2e --repair
""",
)
@click.argument("stores", nargs=-1, metavar="[STORE]...")
@click.option("--repair", is_flag=True, help="Remove what is damaged, so that it is made again.")
@click.pass_context
def verify(ctx: click.Context, stores: tuple[str, ...], repair: bool) -> None:
    """Read token stores whole and compare all checksums; by default all stores. Exit 1 if one is damaged."""
    from brainkit.features.manage import find, list_stores
    from brainkit.features.manage import verify as check
    from brainkit.utils.progress import progress_bar

    known = list_stores()
    bad = 0
    for store in find(known, stores) if stores else known:
        with progress_bar(store.name[:8], "shards") as advance:
            lines = check(store, repair=repair, progress=advance)
        for line in lines:
            click.echo(line)
        bad += len(lines)
        if not lines:
            click.echo(f"{store.name[:8]}: {store.images:,} images, {format_bytes(store.nbytes)}: whole")
    if bad:
        ctx.exit(1)


@command.command(
    epilog="""\b
Examples:
  brainkit cache prune --older-than 30d
  brainkit cache prune --max-size 50GB --dry-run
  brainkit cache prune 3f9a1c2e
""",
)
@click.argument("stores", nargs=-1, metavar="[STORE]...")
@click.option("--older-than", metavar="AGE", help="Stores that were not used for so long: 12h, 30d, 8w.")
@click.option("--max-size", metavar="SIZE", help="The stores longest unused, until the rest is no larger: 50GB.")
@click.option("--all", "everything", is_flag=True, help="All stores.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(
    stores: tuple[str, ...], older_than: str | None, max_size: str | None, everything: bool, dry_run: bool
) -> None:
    """Remove token stores. One that a process is using stays, and is named."""
    from brainkit.errors import UsageError
    from brainkit.features.manage import choose, find, list_stores, remove, seconds_of, size_of

    ways = [bool(stores), older_than is not None or max_size is not None, everything]
    if sum(ways) != 1:
        raise UsageError("cache prune must be told what to remove: STORE..., --older-than, --max-size or --all")
    age = None if older_than is None else seconds_of(older_than)
    size = None if max_size is None else size_of(max_size)
    known = list_stores()
    chosen = find(known, stores) if stores else known if everything else choose(known, older_than=age, max_size=size)
    freed = count = 0
    for store in chosen:
        what = (
            f"{store.name[:8]} ({_kind(store) or store.trouble}, {store.images:,} images, {format_bytes(store.nbytes)})"
        )
        if store.busy if dry_run else not remove(store):
            click.echo(f"{what}: in use, stays")
            continue
        click.echo(f"{what}: {'would be removed' if dry_run else 'removed'}")
        freed += store.nbytes
        count += 1
    click.echo(f"{count} of {len(known)} stores {'would be ' if dry_run else ''}removed, {format_bytes(freed)} freed")


def _kind(store: StoreReport) -> str:
    if store.kind is None:
        return ""
    return f"{store.kind.backbone}, {store.kind.preprocessing.get('size')} px, {store.kind.dtype}"


def _grid(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"
