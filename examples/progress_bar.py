"""A progress bar on a terminal; nothing where there is no terminal, or no rich."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Show a bar on stderr until the context ends; yields what tells it of so much more done.

    The bar is removed at the end, so that only lines of results stay.
    """
    try:
        from rich import progress as rich
        from rich.console import Console
    except ImportError:
        yield _ignore
        return
    if not sys.stderr.isatty():
        yield _ignore
        return
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


def _ignore(_: int) -> None:
    pass
