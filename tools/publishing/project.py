"""The project that is to be published: its folder, cog.yaml, settings, build context and weights."""

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, Field, ValidationError

from snb.errors import SNBError
from snb.settings import Settings
from tools.machine import pins
from tools.publishing.build_context import BuildContext
from tools.publishing.weights import Held, survey
from tools.serving import schema

WEIGHTS = re.compile(r"weights/(?!pins\.json$)")
"""Files below weights/, which are sent only if a boot reads them; pins.json, always sent, does not match."""
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([0-9][A-Za-z0-9.]*)")


class BadConfig(SNBError):
    """cog.yaml is not what the image needs."""

    code = "CONFIG_UNREADABLE"


class Build(BaseModel):
    """The keys of `build` that this package needs. Cog itself refuses a key that it does not know."""

    gpu: Literal[True]
    sdk_version: str
    python_requirements: str


class Config(BaseModel):
    """cog.yaml, as far as this package depends on it."""

    build: Build
    predict: Annotated[str, Field(pattern=r"^[\w/.]+\.py:\w+$")]
    environment: list[str] | None = None


@dataclass(frozen=True)
class Project:
    """The project that is checked, and for which model and hardware; each part is read once."""

    root: Path
    model: str | None = None
    """`owner/name` on Replicate."""
    hardware: str | None = None
    """A key of `limits.HARDWARE`."""
    bare: bool = False
    """Whether it is sent without weights: scripts/image adds them in layers of their own."""

    @cached_property
    def config(self) -> Config:
        """cog.yaml. Raises BadConfig, as does whatever needs it."""
        try:
            return Config.model_validate(yaml.safe_load((self.root / "cog.yaml").read_text(encoding="utf-8")))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        except (OSError, ValueError, yaml.YAMLError) as error:
            wrong = type(error).__name__  # the parser's own words may quote a line with a secret in it
        cure = "Run git checkout -- cog.yaml, or write it as https://cog.run/yaml has it"
        raise BadConfig(f"cog.yaml cannot be used: {wrong}", cure)

    @cached_property
    def needs(self) -> list[Requirement]:
        """The packages that pyproject.toml asks for."""
        table = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*map(Requirement, table["dependencies"])]

    @cached_property
    def pins(self) -> list[str]:
        """The lines of `python_requirements`. Raises BadConfig."""
        return pins(self.root / self.config.build.python_requirements)

    @property
    def versions(self) -> dict[str, str]:
        """The pinned version of each package that the image installs, by canonical name."""
        matches = filter(None, map(PIN.fullmatch, self.pins))
        return {canonicalize_name(match[1]): match[2] for match in matches}

    @cached_property
    def schema(self) -> schema.Part:
        """The schema that `cog build` would derive. Raises BadContract where it could not."""
        file, _, class_name = self.config.predict.partition(":")
        try:
            source = (self.root / file).read_text(encoding="utf-8-sig")
            return schema.derive(source, class_name, self.config.build.sdk_version)
        except (OSError, SyntaxError, ValueError) as failure:
            text = f"{file} cannot be read as Python: {type(failure).__name__}"
            raise schema.BadContract(text, 'Write predict: "FILE:CLASS" into cog.yaml') from failure

    @property
    def environment(self) -> dict[str, str]:
        pairs = (entry.partition("=") for entry in self.config.environment or ())
        return {name: value for name, _, value in pairs}

    @cached_property
    def settings(self) -> Settings:
        """The image's settings, with folders as they are on this machine. Raises BadSetting."""
        chosen = {name: value for name, value in self.environment.items() if name.startswith("SNB_")}
        settings = Settings.from_environment(chosen)
        folders: dict[str, Any] = {
            name: self._here(getattr(settings, name)) for name in ("base_model", "adapter", "prepared")
        }
        weights = self.root / self._here(chosen.get("SNB_WEIGHTS_DIR", "weights"))
        return dataclasses.replace(settings, **folders, weights_dir=weights)

    def _here(self, name: str) -> str:
        """The path on this machine if `name` is a folder of the project; any other name as it is."""
        path = self.root / name
        return str(path) if path.is_dir() else name

    @cached_property
    def context(self) -> BuildContext:
        """The files that are sent; of weights/ only those that a boot reads."""
        visible, read = self._visible, self.sent_weights
        return visible.where(lambda name: name in read or not WEIGHTS.match(name))

    @cached_property
    def _visible(self) -> BuildContext:
        """The files that .dockerignore lets through."""
        return BuildContext.of(self.root)

    @cached_property
    def weights(self) -> tuple[Held, ...]:
        """Base and adapter, or prepared weights, as a boot on Replicate would find them; hashed once."""
        return tuple(survey(self.settings, self._visible))

    @cached_property
    def sent_weights(self) -> frozenset[str]:
        """The files that are sent and that a boot reads as weights."""
        held = () if self.bare else self.weights
        return frozenset[str]().union(*(source.names for source in held))
