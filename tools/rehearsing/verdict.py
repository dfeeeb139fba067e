"""One line of a smoke test: what was looked at, whether it is well, and what was seen."""

from collections.abc import Iterable
from typing import NamedTuple

OK, FAILED, WARNING, NOTE = "ok", "FAILED", "warning", "note"
WIDTH = 300
"""Characters that are shown of what was seen: what a broken server says can be a whole page."""


class Verdict(NamedTuple):
    """`note` is neither good nor bad; a `warning` is for a person to judge, and fails nothing."""

    state: str
    subject: str
    seen: str

    def line(self, secrets: Iterable[str] = ()) -> str:
        """The verdict in one line, without what must not be shown."""
        seen = self.seen
        for secret in filter(None, secrets):
            seen = seen.replace(secret, "[secret]")
        return f"{self.state:8} {self.subject:12} {plain(seen)}"


def plain(text: str, width: int = WIDTH) -> str:
    """A text on one line, of limited length, and harmless to a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else f"{line[:width]}…"
