"""The project that is to be published: its folder, cog.yaml, settings and build context, each read once."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from snb.errors import SNBError
from snb.settings import Settings
from snb.weights.hub import Hub
from tools.benchmarking.bounds import Card
from tools.publishing.build_context import BuildContext
from tools.publishing.image_weights import Survey, survey

SOURCE = Path("/src")
"""Where Cog puts the project in the image."""
HERE_ONLY = ("SNB_API_KEY",)
"""Settings of other hosts, which Replicate does not need: it asks for its own token."""


class BadConfig(SNBError):
    """cog.yaml cannot be read as what Cog wants."""

    code = "CONFIG_UNREADABLE"


@dataclass(frozen=True)
class Project:
    """What is checked, and for what.

    Raises:
        BadConfig: whatever needs cog.yaml, where it cannot be read.
        BadSetting: whatever needs the settings, where they are wrong.
    """

    root: Path
    environ: Mapping[str, str]
    """Of whoever publishes: PATH, HOME, tokens and settings."""
    model: str | None
    """`owner/name` on Replicate."""
    card: Card | None
    """Of the hardware, where one is chosen."""
    bytes_per_second: float
    """At which an image or weights arrive."""
    published: Path | None = None
    """A file with the schema that callers know."""
    hub: Hub = field(default_factory=lambda: Hub(token=None, sleep=lambda _: None))
    """Without a token, as on Replicate; and nobody waits a minute for a network to come back."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """cog.yaml."""
        try:
            found = yaml.safe_load((self.root / "cog.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            # What the parser says may quote a line, and a line may hold a secret.
            where = getattr(error, "problem_mark", None)
            line = f" in line {where.line + 1}" if where else ""
            raise BadConfig(
                f"cog.yaml cannot be read{line}: {type(error).__name__}",
                "Write it as https://cog.run/yaml has it",
            ) from error
        if not isinstance(found, dict) or not isinstance(found.get("build"), dict):
            raise BadConfig("cog.yaml has no table `build`", "Write it as https://cog.run/yaml has it")
        return found

    @property
    def baked(self) -> dict[str, str]:
        """The variables that `environment:` of cog.yaml puts into the image."""
        entries = self.config.get("environment") or []
        pairs = (entry.partition("=") for entry in entries if isinstance(entry, str))
        return {name: value for name, _, value in pairs}

    @property
    def asked(self) -> dict[str, str]:
        """The settings of this shell, which the image never sees."""
        names = [name for name in self.environ if name.startswith("SNB_") and name not in HERE_ONLY]
        return {name: self.environ[name] for name in names if self.environ[name]}

    @cached_property
    def settings(self) -> Settings:
        """What is asked for, here or in cog.yaml, with folders where they are on this machine."""
        baked = {name: value for name, value in self.baked.items() if name.startswith("SNB_")}
        baked = {name: value for name, value in baked.items() if name not in HERE_ONLY}
        found = Settings.from_environment({**baked, **self.asked})
        chosen = "SNB_WEIGHTS_DIR" in baked | self.asked
        places = {name: self._here(getattr(found, name)) for name in ("base_model", "adapter", "prepared")}
        weights = Path(self._here(str(found.weights_dir))) if chosen else Path("weights")
        return dataclasses.replace(found, weights_dir=self.root / weights, **places)

    def _here(self, name: str) -> str:
        """A folder of the image as it is called on this machine; any other name as it is."""
        path = Path(name)
        if path.is_relative_to(SOURCE):
            path = path.relative_to(SOURCE)
        return str(self.root / path) if (self.root / path).is_dir() else name

    @cached_property
    def context(self) -> BuildContext:
        """What Docker would send."""
        return BuildContext.of(self.root)

    @cached_property
    def weights(self) -> Survey:
        """What the image will find of base, adapter and prepared weights."""
        return survey(self.settings, self.context, self.hub)
