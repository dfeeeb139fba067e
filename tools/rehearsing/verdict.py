"""One line of a smoke test: what was looked at, whether it is well, and what was seen."""

import os
from typing import NamedTuple

from tools.command import plain

OK, FAILED, WARNING = "ok", "FAILED", "warning"
SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY", "SNB_OPENAI_TOKEN", "HF_TOKEN")


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
