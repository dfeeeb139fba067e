"""What every command of `scripts/` shares: its command line, its exit code, and how errors are shown."""

import argparse
import signal
import subprocess
import sys
from importlib import import_module

from snb.errors import SNBError


class Fault(Exception):
    """A fault that a person can act on; its text is all that is shown."""


ERRORS = (Fault, SNBError, OSError, ModuleNotFoundError, subprocess.CalledProcessError)
"""Faults that a user can act on, shown as one line; anything else is a bug and keeps its traceback."""


WIDTH = 300
"""Characters shown of a text from elsewhere: a broken server may send a whole page."""


def say(line: str) -> None:
    """Prints progress to stderr: stdout is for the command's result."""
    print(line, file=sys.stderr, flush=True)


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows `description`, usually the module's docstring, with its line breaks."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw)


def plain(text: str, width: int = WIDTH) -> str:
    """A text from elsewhere as one line of at most `width` characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else f"{line[:width]}…"


def run(module: str) -> int:
    """Runs `main()` of a module and returns its exit code; 130 after Ctrl-C or `kill`, 1 after an error."""
    try:
        main = import_module(module).main  # takes seconds, and leaves nothing to clean up
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        code: int = main()
    except KeyboardInterrupt:
        return 130
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    return code
