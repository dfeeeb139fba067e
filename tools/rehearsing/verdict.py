"""One line of a smoke test: what was looked at, whether it is well, and what was seen."""

import os
from typing import NamedTuple

OK, FAILED, WARNING = "ok", "FAILED", "warning"
SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY", "SNB_OPENAI_TOKEN", "HF_TOKEN")
WIDTH = 300
"""Characters that are shown of what was seen: what a broken server says can be a whole page."""


class Verdict(NamedTuple):
    """A `warning` is for a person to judge, and fails nothing."""

    state: str
    subject: str
    seen: str

    def __str__(self) -> str:
        """One line, without a secret of this environment."""
        seen = self.seen
        for secret in filter(None, map(os.environ.get, SECRETS)):
            seen = seen.replace(secret, "[secret]")
        return f"{self.state:8} {self.subject:12} {plain(seen)}"


def plain(text: str, width: int = WIDTH) -> str:
    """A text on one line, of limited length, and harmless to a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else f"{line[:width]}…"
