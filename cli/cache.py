"""``brainkit cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from brainkit.utils.text import format_bytes, plural

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
    """List, verify and prune the tokens stored in $BRAINKIT_CACHE/tokens.

    Anything removed is extracted again when needed.
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError("missing command: list, verify or prune", ctx=ctx)


@command.command(
    "list",
    epilog="""\b
Example:
  brainkit cache list
""",
)
def list_() -> None:
    """List all token stores, the most recently used first."""
    import time

    from brainkit.features.manage import list_stores

    stores = list_stores()
    if not stores:
        click.echo("no token stores")
        return
    click.echo(f"{'store':<10}{'backbone':<32}{'layers':>7}{'grid':>7}{'images':>9}{'size':>10}  {'last used':<18}")
    for store in stores:
        name = layers = grid = "-"
        if store.spec is not None:
            name, layers = store.spec.backbone, str(len(store.spec.layers))
            grid = "x".join(map(str, store.spec.grid))
        name = name if len(name) < 32 else f"...{name[-28:]}"
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store.last_used))
        notes = "; ".join(filter(None, [_describe(store), "in use" if store.in_use else "", store.problem]))
        size = format_bytes(store.nbytes)
        click.echo(
            f"{store.name[:8]:<10}{name:<32}{layers:>7}{grid:>7}{store.n_images:>9,}{size:>10}  {used:<18}"
            f"{notes}".rstrip()
        )
    total = format_bytes(sum(store.nbytes for store in stores))
    click.echo(f"{plural(len(stores), 'store')}, {total}")


@command.command(
    epilog="""\b
Examples:
  brainkit cache verify
  brainkit cache verify 3f9a1c2e --repair
""",
)
@click.argument("stores", nargs=-1, metavar="[STORE]...")
@click.option("--repair", is_flag=True, help="Remove what is damaged; it is extracted again when needed.")
@click.pass_context
def verify(ctx: click.Context, stores: tuple[str, ...], repair: bool) -> None:
    """Compare all checksums of token stores, by default of all stores. Exit code 1 if something is damaged."""
    from brainkit.features.manage import find_stores, list_stores, verify_store
    from brainkit.utils.progress import progress_bar

    available = list_stores()
    damaged = False
    for store in find_stores(available, stores) if stores else available:
        with progress_bar(store.name[:8], "shards") as advance:
            problems = verify_store(store, repair=repair, progress=advance)
        for problem in problems:
            click.echo(problem)
        if not problems:
            click.echo(f"{store.name[:8]}: {plural(store.n_images, 'image')}, {format_bytes(store.nbytes)}: intact")
        damaged = damaged or bool(problems)
    if damaged:
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
@click.option("--older-than", metavar="AGE", help="Stores last used longer ago than this: 12h, 30d, 8w.")
@click.option("--max-size", metavar="SIZE", help="The least recently used stores, until the rest fits in this: 50GB.")
@click.option("--all", "everything", is_flag=True, help="All stores.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
def prune(
    stores: tuple[str, ...], older_than: str | None, max_size: str | None, everything: bool, dry_run: bool
) -> None:
    """Remove token stores. Stores in use are kept and named."""
    from brainkit.features.manage import find_stores, list_stores, parse_age, parse_size
    from brainkit.features.manage import prune as prune_stores

    if [bool(stores), older_than is not None or max_size is not None, everything].count(True) != 1:
        raise click.UsageError("give what to remove: either STORE..., or --older-than and --max-size, or --all")
    available = list_stores()
    results = prune_stores(
        find_stores(available, stores) if stores else available,
        older_than=None if older_than is None else parse_age(older_than),
        max_size=None if max_size is None else parse_size(max_size),
        dry_run=dry_run,
    )
    for store, removed in results:
        what = f"{_describe(store) or store.problem}, {plural(store.n_images, 'image')}, {format_bytes(store.nbytes)}"
        outcome = ("would be removed" if dry_run else "removed") if removed else "in use, kept"
        click.echo(f"{store.name[:8]} ({what}): {outcome}")
    sizes = [store.nbytes for store, removed in results if removed]
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(sizes)} of {plural(len(available), 'store')} {verb}, {format_bytes(sum(sizes))} freed")


def _describe(store: StoreReport) -> str:
    if store.spec is None:
        return ""
    return f"{store.spec.backbone}, {store.spec.preprocessing.get('size')} px, {store.spec.dtype}"
