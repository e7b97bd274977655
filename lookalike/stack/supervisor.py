"""The stack while it runs: each process as soon as what it needs is up, and all of them until the end is asked for."""

import signal
from collections.abc import Sequence

import click

from lookalike.ingest.shutdown import Shutdown
from lookalike.stack.data_dir import DataDir
from lookalike.stack.process import Process, ProcessSpec

_LOOK_EVERY = 0.2


def run(plans: Sequence[ProcessSpec], folder: DataDir, lock: int, hint: str) -> None:
    """Run processes, of which each needs those before it; ends them in the opposite order. Raises ProcessFailed.

    `hint` is said once all of them are up.
    """
    processes = [Process(plan, folder.log(plan.name), lock) for plan in plans]
    click.echo(f"Data and logs are in {folder.root}. Ctrl-C ends everything.", err=True)
    with Shutdown() as shutdown:
        # The terminal was closed.
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))
        try:
            while not shutdown.token.is_cancelled:
                if _all_up(processes) and hint:
                    click.echo(hint, err=True)
                    hint = ""
                shutdown.token.wait(_LOOK_EVERY)
        finally:
            _end(processes)


def _all_up(processes: Sequence[Process]) -> bool:
    """Look at each, and start what can be started."""
    all_up = True
    for process in processes:
        process.look(may_start=all_up)
        all_up = all_up and process.up
    return all_up


def _end(processes: Sequence[Process]) -> None:
    """End them; a second Ctrl-C kills what is left."""
    click.echo("Ending …", err=True)
    try:
        for process in reversed(processes):
            process.end()
    finally:
        for process in processes:
            process.kill()
