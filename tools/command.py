"""How every command of `scripts/` runs: its options, what ends it, and what a person sees of an error."""

import argparse
import signal
import subprocess
import sys
from importlib import import_module

from snb.errors import SNBError


class Fault(Exception):
    """What a person can act on; its text is all that is shown."""


ERRORS = (Fault, SNBError, OSError, ModuleNotFoundError, subprocess.CalledProcessError)
"""Faults that a user can act on, shown as one line; anything else is a bug and keeps its traceback."""


WIDTH = 300
"""Characters that are shown of what others say: of a broken server it can be a whole page."""


def say(line: str) -> None:
    """Progress, on stderr: stdout is for what a command is asked for."""
    print(line, file=sys.stderr, flush=True)


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A command line, whose help shows the module's own text as it is laid out."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw)


def plain(text: str, width: int = WIDTH) -> str:
    """A text of somebody else's on one line, of limited length, and harmless to a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else f"{line[:width]}…"


def run(module: str) -> int:
    """Runs `main()` of a module; its exit code, which is 130 after Ctrl-C or `kill`."""
    try:
        main = import_module(module).main  # which takes seconds, and leaves nothing to tidy
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        code: int = main()
    except KeyboardInterrupt:
        return 130
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    return code
