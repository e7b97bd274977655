"""The running stack: starts each process when those before it are ready, and stops all of them at the end."""

import signal
from collections.abc import Sequence

import click

from lookalike.ingest.shutdown import Shutdown
from lookalike.stack.data_dir import DataDir
from lookalike.stack.process import Process, ProcessSpec

_POLL_SECONDS = 0.2


def run_processes(specs: Sequence[ProcessSpec], data_dir: DataDir, lock_fd: int, ready_message: str) -> None:
    """Run the processes until Ctrl-C, SIGTERM or SIGHUP; print `ready_message` once all are ready.

    Each process needs those before it: they start in this order and stop in reverse. Raises ProcessFailed.
    """
    processes = [Process(spec, data_dir.log_file(spec.name), lock_fd) for spec in specs]
    click.echo(f"Data and logs are in {data_dir.root}. Press Ctrl-C to stop.", err=True)
    with Shutdown() as shutdown:
        # A closed terminal stops the stack too.
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))
        try:
            while not shutdown.token.is_cancelled:
                if _poll_all(processes) and ready_message:
                    click.echo(ready_message, err=True)
                    ready_message = ""
                shutdown.token.wait(_POLL_SECONDS)
        finally:
            _stop_all(processes)


def _poll_all(processes: Sequence[Process]) -> bool:
    """Poll each process; start it if all before it are ready. Return whether all are ready."""
    all_ready = True
    for process in processes:
        process.poll(may_start=all_ready)
        all_ready = all_ready and process.is_ready
    return all_ready


def _stop_all(processes: Sequence[Process]) -> None:
    """Stop the processes in reverse order; a second Ctrl-C kills those that are left."""
    click.echo("Stopping …", err=True)
    try:
        for process in reversed(processes):
            process.stop()
    finally:
        for process in processes:
            process.kill()
