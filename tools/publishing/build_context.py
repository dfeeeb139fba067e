"""The files that Docker would send for a build, and a folder that holds only these, for Cog to run in."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from docker.utils.build import exclude_paths

from snb.weights.lock import alone
from tools.command import say

COG = ".cog"
"""Cog's own folder, which it never sends, whatever .dockerignore says (cog, pkg/image/build.go)."""
STAGE = Path(COG) / "push"
"""The folder, in the project; git and Docker ignore it."""


@dataclass(frozen=True)
class BuildContext:
    """The files that are sent, by their path from the project's root, with their sizes in bytes.

    A symbolic link is sent as a link: a target outside the project is not sent.
    """

    root: Path
    files: Mapping[str, int]
    links: frozenset[str]

    @classmethod
    def of(cls, root: Path) -> "BuildContext":
        """The context of a project. Looks at names and sizes; reads only .dockerignore, as Docker does."""
        file = root / ".dockerignore"
        # Docker drops a byte order mark; names need not be UTF-8.
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape") if file.is_file() else ""
        patterns = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        status = {name: (root / name).lstat() for name in sorted(exclude_paths(str(root), [*patterns, COG]))}
        links = frozenset(name for name, one in status.items() if stat.S_ISLNK(one.st_mode))
        return cls(root, {name: s.st_size for name, s in status.items() if stat.S_ISREG(s.st_mode)}, links)

    def where(self, kept: Callable[[str], bool]) -> "BuildContext":
        files = {name: size for name, size in self.files.items() if kept(name)}
        return BuildContext(self.root, files, frozenset(filter(kept, self.links)))

    def inside(self, folder: Path) -> dict[str, str]:
        """The files directly in a folder that are sent: their names there, and their paths from the root."""
        names = {path.name: os.path.relpath(path, self.root) for path in folder.iterdir()}
        return {name: sent for name, sent in names.items() if sent in self.files}

    def cog(self, *words: str) -> int:
        """Runs Cog in a folder that holds what is sent; returns its exit code. Its output goes to stderr."""
        # With COG_OPENAPI_SCHEMA, Cog would embed the schema in that file instead of predict.py's.
        variables = {name: value for name, value in os.environ.items() if name != "COG_OPENAPI_SCHEMA"}
        say(" ".join(["cog", *words]))
        with self.staged() as folder:
            return subprocess.run(["cog", *words], cwd=folder, env=variables, stdout=sys.stderr).returncode

    @contextlib.contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder with these files, as hard links where the disk has them; emptied when the block ends.

        `cog push --separate-weights` copies each folder with a file above 10 MB and no Python into the layer
        of weights, even if .dockerignore leaves it out (Cog 0.23, pkg/weightslegacy), and the build then
        fails because Docker was not sent that folder: .venv/bin is one. Delete this when Cog respects
        .dockerignore there. Cog's own cache is kept, so that unchanged weights are not built again.
        """
        stage = self.root / STAGE
        with alone(stage.with_name("push.lock")):
            stage.mkdir(parents=True, exist_ok=True)
            _clear(stage)
            try:
                for name in [*self.files, *self.links]:
                    (stage / name).parent.mkdir(parents=True, exist_ok=True)
                    try:
                        os.link(self.root / name, stage / name, follow_symlinks=False)
                    except OSError:  # another disk, or one without hard links
                        shutil.copy2(self.root / name, stage / name, follow_symlinks=False)
                yield stage
            finally:
                _clear(stage)


def _clear(stage: Path) -> None:
    for path in stage.iterdir():
        if path.name != COG:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
