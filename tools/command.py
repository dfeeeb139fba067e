"""How every command of `scripts/` runs: what ends it, and what a person sees of an error."""

import atexit
import os
import signal
import subprocess
import sys
from importlib import import_module
from types import TracebackType

from snb.errors import SNBError


class Fault(Exception):
    """What a person can act on; its text is all that is shown."""


def run(module: str) -> int:
    """Runs `main()` of a module; its exit code."""
    handle_errors()
    code: int = import_module(module).main()
    return code


def handle_errors() -> None:
    """Lets Ctrl-C, `kill` and a closed terminal end a command through its `finally`; errors go to `show`."""
    sys.excepthook = show
    atexit.register(flush)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of a traceback: nothing for Ctrl-C (130) and `| head`, and one line for what is no bug."""
    if isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
    if isinstance(error, (Fault, SNBError, OSError, ModuleNotFoundError, subprocess.CalledProcessError)):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def flush() -> None:
    """A reader that has seen enough, as `| head` has, is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
