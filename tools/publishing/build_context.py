"""What Docker would send for a build: every file of the project that .dockerignore does not leave out."""

import stat
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from docker.utils.build import exclude_paths

IGNORE = ".dockerignore"
COG = ".cog"
"""Cog's own folder, which it never sends, whatever .dockerignore says (cog, pkg/image/build.go)."""


@dataclass(frozen=True)
class BuildContext:
    """The files that are sent, by their path from the project's root, with their bytes.

    A symbolic link is sent as a link: what it points to outside the project does not come along.
    """

    root: Path
    files: Mapping[str, int]
    links: frozenset[str]

    @classmethod
    def of(cls, root: Path) -> "BuildContext":
        """Looks at names and sizes; reads nothing but .dockerignore."""
        files, links = {}, set()
        for name in sorted(exclude_paths(str(root), [*patterns(root), COG])):
            status = (root / name).lstat()
            if stat.S_ISLNK(status.st_mode):
                links.add(name)
            elif stat.S_ISREG(status.st_mode):
                files[name] = status.st_size
        return cls(root, files, frozenset(links))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def name(self, path: Path) -> str | None:
        """The name here of a file that is sent, or None."""
        absolute = path.absolute()
        name = absolute.relative_to(self.root).as_posix() if absolute.is_relative_to(self.root) else ""
        return name if name in self.files else None

    def without(self, names: Collection[str]) -> "BuildContext":
        """The rest."""
        kept = {name: size for name, size in self.files.items() if name not in names}
        return BuildContext(self.root, kept, self.links)

    def largest(self, count: int) -> list[tuple[str, int]]:
        """Where most bytes are: files at the top, folders, and in weights/ each folder of its own."""
        groups: dict[str, dict[str, int]] = defaultdict(dict)
        for name, size in self.files.items():
            parts = name.split("/")
            depth = 2 if parts[0] == "weights" else 1
            groups["/".join(parts[:depth])][name] = size
        totals = [(_spelled(group, held), sum(held.values())) for group, held in groups.items()]
        return sorted(totals, key=lambda total: -total[1])[:count]


def patterns(root: Path) -> list[str]:
    """The lines of .dockerignore that say something."""
    file = root / IGNORE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _spelled(group: str, held: Mapping[str, int]) -> str:
    """A folder in which one file is nearly all is called by that file."""
    name, size = max(held.items(), key=lambda one: one[1])
    return name if 10 * size >= 9 * sum(held.values()) else f"{group}/"
