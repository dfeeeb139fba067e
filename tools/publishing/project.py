"""The project that is to be published: its folder, cog.yaml, settings, build context and weights."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from snb.errors import SNBError
from snb.settings import Settings
from tools.publishing.build_context import BuildContext
from tools.publishing.image_weights import Held, survey

SOURCE = Path("/src")
"""Where Cog puts the project in the image."""


class BadConfig(SNBError):
    """cog.yaml cannot be read as what Cog wants."""

    code = "CONFIG_UNREADABLE"


@dataclass(frozen=True)
class Project:
    """What is checked, and for what; each part is read once.

    Raises:
        BadConfig: whatever needs cog.yaml, where it cannot be read.
        BadSetting: whatever needs the settings, where `environment:` of cog.yaml has wrong ones.
    """

    root: Path
    model: str | None = None
    """`owner/name` on Replicate."""
    hardware: str | None = None
    """A key of `image.HARDWARE`."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """cog.yaml."""
        cure = "Write it as https://cog.run/yaml has it"
        try:
            config = yaml.safe_load((self.root / "cog.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            # What the parser says may quote a line, and a line may hold a secret.
            where = getattr(error, "problem_mark", None)
            line = f" in line {where.line + 1}" if where else ""
            raise BadConfig(f"cog.yaml cannot be read{line}: {type(error).__name__}", cure) from error
        if not isinstance(config, dict) or not isinstance(config.get("build"), dict):
            raise BadConfig("cog.yaml has no table `build`", cure)
        return config

    @property
    def environment(self) -> dict[str, str]:
        """The variables that `environment:` of cog.yaml puts into the image."""
        pairs = (str(entry).partition("=") for entry in self.config.get("environment") or [])
        return {name: value for name, _, value in pairs}

    @cached_property
    def settings(self) -> Settings:
        """Those of the image, with folders where they are on this machine."""
        chosen = {name: value for name, value in self.environment.items() if name.startswith("SNB_")}
        settings = Settings.from_environment(chosen)
        return dataclasses.replace(
            settings,
            base_model=self._here(settings.base_model),
            adapter=self._here(settings.adapter),
            prepared=self._here(settings.prepared),
            weights_dir=self.root / self._here(chosen.get("SNB_WEIGHTS_DIR", "weights")),
        )

    def _here(self, name: str) -> str:
        """A folder of the image as it is called on this machine; any other name as it is."""
        path = self.root / (Path(name).relative_to(SOURCE) if name.startswith(f"{SOURCE}/") else name)
        return str(path) if path.is_dir() else name

    @cached_property
    def context(self) -> BuildContext:
        """What Docker would send."""
        return BuildContext.of(self.root)

    @cached_property
    def weights(self) -> tuple[Held, ...]:
        """Base and adapter, or prepared weights, as a boot on Replicate would find them; hashed once."""
        return tuple(survey(self.settings, self.context))

    @property
    def sent_weights(self) -> frozenset[str]:
        """The files of the build context that a boot reads as weights."""
        return frozenset[str]().union(*(held.names for held in self.weights))
