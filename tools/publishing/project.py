"""The project that is to be published: its folder, cog.yaml, settings, build context and weights."""

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from snb.errors import SNBError
from snb.settings import Settings
from tools.machine import pins
from tools.publishing.build_context import BuildContext
from tools.publishing.weights import Held, survey
from tools.serving import schema

WEIGHTS = re.compile(r"weights/(?!pins\.json$)")
"""Begins the names of what is sent only where a boot reads it: git holds the exception."""
SOURCE = "/src/"
"""Where Cog puts the project in the image."""
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([0-9][A-Za-z0-9.]*)")


class BadConfig(SNBError):
    """cog.yaml cannot be read as what Cog wants, or pyproject.toml not at all."""

    code = "CONFIG_UNREADABLE"


class KeyTwice(yaml.YAMLError):
    """Cog's parser takes no key twice; PyYAML takes the last."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(own):
            raise KeyTwice
        return mapping


@dataclass(frozen=True)
class Project:
    """What is checked, and for what; each part is read once."""

    root: Path
    model: str | None = None
    """`owner/name` on Replicate."""
    hardware: str | None = None
    """A key of `limits.HARDWARE`."""
    bare: bool = False
    """Whether it is sent without weights: scripts/image adds them in layers of their own."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """cog.yaml. Raises BadConfig, as does whatever needs it."""
        try:
            config = _Loader((self.root / "cog.yaml").read_text(encoding="utf-8")).get_single_data()
            assert config["build"].keys()
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
            # What the parser says may quote a line, and a line may hold a secret.
            fault = f"cog.yaml cannot be read, or has no table `build`: {type(error).__name__}"
            cure = "Run git checkout -- cog.yaml, or write it as https://cog.run/yaml has it"
            raise BadConfig(fault, cure) from error
        return dict(config)

    @cached_property
    def needs(self) -> tuple[SpecifierSet, list[Requirement]]:
        """What pyproject.toml asks of Python, and of packages. Raises BadConfig."""
        try:
            table = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            return SpecifierSet(table["requires-python"]), [*map(Requirement, table["dependencies"])]
        except (OSError, ValueError, LookupError, TypeError) as error:
            fault = f"pyproject.toml cannot be read: {type(error).__name__}"
            raise BadConfig(fault, "Run git checkout -- pyproject.toml") from error

    @cached_property
    def pins(self) -> list[str]:
        """The lines of `python_requirements`. Raises BadConfig."""
        file = self.root / str(self.config["build"].get("python_requirements", ""))
        try:
            return pins(file) if file.is_file() else []
        except ValueError as error:
            cure = "Run git checkout -- requirements.txt, or scripts/pin-packages, which writes it"
            raise BadConfig(f"{file.name} is not UTF-8", cure) from error

    @property
    def versions(self) -> dict[str, str]:
        """Of each package that the image installs, where it is pinned."""
        matches = filter(None, map(PIN.fullmatch, self.pins))
        return {canonicalize_name(match[1]): match[2] for match in matches}

    @cached_property
    def schema(self) -> schema.Part:
        """The schema that `cog build` would derive. Raises BadContract where it could not."""
        file, _, class_name = str(self.config.get("predict", "")).partition(":")
        try:
            source = (self.root / file).read_text(encoding="utf-8-sig")
            return schema.derive(source, class_name, str(self.config["build"].get("sdk_version")))
        except (OSError, SyntaxError, ValueError) as failure:
            text = f"{file or '`predict` of cog.yaml'} cannot be read as Python: {type(failure).__name__}"
            raise schema.BadContract(text, 'Write predict: "FILE:CLASS" into cog.yaml') from failure

    @property
    def environment(self) -> dict[str, str]:
        """The variables that `environment:` of cog.yaml puts into the image."""
        pairs = (str(entry).partition("=") for entry in self.config.get("environment") or [])
        return {name: value for name, _, value in pairs}

    @cached_property
    def settings(self) -> Settings:
        """Those of the image, with folders where they are on this machine. Raises BadSetting."""
        chosen = {name: value for name, value in self.environment.items() if name.startswith("SNB_")}
        settings = Settings.from_environment(chosen)
        folders: dict[str, Any] = {
            name: self._here(getattr(settings, name)) for name in ("base_model", "adapter", "prepared")
        }
        weights = self.root / self._here(chosen.get("SNB_WEIGHTS_DIR", "weights"))
        return dataclasses.replace(settings, **folders, weights_dir=weights)

    def _here(self, name: str) -> str:
        """A folder of the image as it is called on this machine; any other name as it is."""
        path = self.root / name.removeprefix(SOURCE)
        return str(path) if path.is_dir() else name

    @cached_property
    def context(self) -> BuildContext:
        """What is sent: of weights/ only what a boot reads."""
        visible, read = self._visible, self.sent_weights
        return visible.where(lambda name: name in read or not WEIGHTS.match(name))

    @cached_property
    def _visible(self) -> BuildContext:
        """What .dockerignore lets through."""
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
