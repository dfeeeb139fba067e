"""The philosophers: one text file each, which is the system prompt of its persona."""

from pathlib import Path

from snb.errors import BadInput

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The philosophers that can be asked, in alphabetical order."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.txt")))


def persona(name: str) -> str:
    """The system prompt of `name`, in French.

    Raises:
        BadInput: there is no such philosopher.
    """
    if name not in names():
        raise BadInput(f"there is no philosopher {name!r}", f"Philosophers: {', '.join(names())}")
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8-sig").strip()
