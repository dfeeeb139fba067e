"""The build context as a folder of its own, in which `cog push` runs.

`cog push --separate-weights` copies each folder that has a file above 10 MB and no Python into the layer of
weights, whether .dockerignore leaves it out or not (cog, pkg/weightslegacy), and the build then fails because
Docker was not sent it: `.venv/bin` and the stand-in are such folders. Where there is only what is sent, there
are none, and what was checked is what goes. To be deleted when Cog looks at .dockerignore there.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.publishing.build_context import COG, BuildContext

FOLDER = Path(COG) / "push"
"""In the project: git and Docker ignore it, and it is on the same disk."""


@contextlib.contextmanager
def staged(context: BuildContext) -> Iterator[Path]:
    """A folder with the files of a context, as hard links where the disk has them; it ends with the block.

    Cog's own cache in it stays, by which weights that have not changed are not built again.
    """
    folder = context.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    try:
        for name in context.files:
            _link(context.root / name, folder / name)
        for name in context.links:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((context.root / name).readlink())
        yield folder
    finally:
        _clear(folder)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == COG:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
