"""`generalist store`: what earlier trainings left for later ones."""

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from generalist.errors import BadInput
from pipelines.cli.shell import new_app, printing, say, tell

if TYPE_CHECKING:
    from generalist.store import Entry, Store

app = new_app(help="The store of states, which trainings share and resume from.")
_DAY = 24 * 60 * 60.0
_IN_USE = 60 * 60.0  # seconds; a younger temporary file may have a writer


@app.command("list")
def show(
    files: Annotated[bool, typer.Option("--files", help="A line for each file instead of each kind.")] = False,
) -> None:
    """Show what the store holds."""
    from rich.table import Table

    from pipelines.terminal import Terminal

    store, entries = _open_store()
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "epoch" if files else "files", "size", "last used", *(["file"] if files else [])):
        table.add_column(title, justify="right" if title in ("epoch", "files", "size") else "left", no_wrap=True)
    if files:
        for entry in entries:
            epoch = str(entry.facts.get("epoch", ""))
            table.add_row(entry.kind, epoch, decimal(entry.bytes), _format_time(entry.used), str(entry.name))
    else:
        for kind, group in sorted(_by_kind(entries).items()):
            total, last = sum(file.bytes for file in group), max(file.used for file in group)
            table.add_row(kind, f"{len(group):,}", decimal(total), _format_time(last))
    console = Terminal(width=160 if files else None)  # a name must not be cut
    where = store.folder if store.remote is None else f"{store.remote.shown}, copies in {store.folder}"
    with printing():
        console.print(table if entries else "nothing yet", soft_wrap=True)
        console.print(
            f"{len(entries):,} files, {decimal(sum(file.bytes for file in entries))} in {where}", soft_wrap=True
        )


@app.command()
def verify() -> None:
    """Compare every state with its checksum.

    What is damaged is set aside, so that it is computed again.
    """
    store, _ = _open_store()
    whole, lost = store.verify_all()
    for error in lost:
        tell(str(error))
    say(f"{whole:,} of {whole + len(lost):,} states are whole")
    if lost:
        raise typer.Exit(1)


@app.command()
def prune(
    days: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Delete states not used for so many days.")
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete states that were not used for a while.

    Also what was set aside or left by killed writers.

    What is deleted is computed again where it is needed: only time is lost.
    """
    store, entries = _open_store()
    now = time.time()
    old = [entry for entry in entries if entry.path is not None and now - entry.used >= _seconds_kept(entry.kind, days)]
    for entry in old:
        if not dry_run:
            store.remove(entry)
    does = "would delete" if dry_run else "deleted"
    say(f"{does} {len(old):,} of {len(entries):,} files, {decimal(sum(entry.bytes for entry in old))}")


def _seconds_kept(kind: str, days: float) -> float:
    """Return the seconds since its last use for which a file is kept."""
    return {"damaged": 0.0, "left over": _IN_USE}.get(kind, days * _DAY)


def _open_store() -> "tuple[Store, list[Entry]]":
    from pipelines import steps
    from pipelines.workspace import Workspace

    store = steps.open_store(Workspace.find())
    try:
        return store, list(store.entries())
    except OSError as error:
        raise BadInput(f"{store.folder} can't be read ({error.strerror}): it must be a folder of yours") from None


def _by_kind(entries: "list[Entry]") -> "dict[str, list[Entry]]":
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.kind].append(entry)
    return groups


def _format_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) if moment else ""
