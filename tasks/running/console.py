"""Log lines that go nowhere: a worker reads what its runs print, and a run outlives a worker that is killed."""

import logging

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console


def outlive_reader() -> None:
    """Let a broken pipe cost this process its lines on the console, and not the run.

    rich, through which Prefect prints, would end the process (its Console.on_broken_pipe).
    """
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in (logging.root, *loggers):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                _ignore_broken_pipe(handler.console)


def _ignore_broken_pipe(console: Console) -> None:
    def fall_silent() -> None:
        console.quiet = True

    # rich means this method to be overridden in a subclass, but Prefect makes the console.
    console.on_broken_pipe = fall_silent  # type: ignore[method-assign]
