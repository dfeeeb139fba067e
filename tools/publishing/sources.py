"""Whether the image gets the code that it runs: every file of it, and a persona for each choice."""

import ast
import os
import re
import symtable
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from shlex import quote

from tools.publishing.finding import Finding
from tools.publishing.project import Project

PACKAGE, PINS = "snb", "weights/pins.json"
PERSONAS = f"{PACKAGE}/philosophers"
FAULTS = {
    r"\A\s*\Z": ("PERSONA_EMPTY", "is empty"),
    "\ufffd": ("PERSONA_UNREADABLE", "is not UTF-8"),
    r"\n>>>>>>> ": ("PERSONA_CONFLICT", "holds a conflict that git left"),
}
SHOW = rf"Run printf '!%s\n' cog.yaml predict.py requirements.txt {PACKAGE} {PINS} >> .dockerignore"


def files(project: Project) -> Iterator[Finding]:
    """Whether everything that builds the image and that it runs is sent, and all of it is Python."""
    names = _names(project)
    if hidden := [name for name in names if name not in project.context.files]:
        text = f"{len(hidden)} files would not be in the image: {', '.join(hidden[:3])}"
        cure = f"{SHOW}, and put files in the place of links"
        yield Finding("error", "FILE_NOT_SENT", f"{text}{' …' * (len(hidden) > 3)}", cure)
    for name in names:
        line = broken(project.root / name)
        if line is not None and name.startswith(PACKAGE):  # of predict.py, the schema says it
            text = f"{name}, line {line}, is not Python, and nothing would boot"
            yield Finding("error", "SOURCE_BROKEN", text, f"Mend it, or run git checkout -- {name}")


def imports(project: Project) -> Iterator[Finding]:
    """Whether all that the code imports of itself is there."""
    for name, module, member in imported(project):
        path = project.root.joinpath(*module.split("."))
        file = next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)
        if module.split(".")[0] != PACKAGE or (file and broken(file) is not None):
            continue
        if not file or not (member in {None, "*"} | members(file) or list(path.glob(f"{member}*"))):
            text = f"{name} imports {member or 'all'} of {module}, which is not there"
            cure = f"Mend one of them, or run git checkout -- {PACKAGE}"
            yield Finding("error", "IMPORT_ABSENT", text, cure)


def personas(project: Project) -> Iterator[Finding]:
    """Whether each choice of `philosopher` has a persona, and each persona a choice."""
    choices = {*project.schema["components"]["schemas"].get("philosopher", {}).get("enum", [])}
    texts = {path.stem: path for path in (project.root / PERSONAS).glob("*.txt")}
    for name in sorted(choices - texts.keys()):
        text = f"predict.py offers {name}, and {PERSONAS}/{name}.txt is not there"
        cure = f"Run git checkout -- {PERSONAS}, or take {name} out of `choices` in predict.py"
        yield Finding("error", "PERSONA_ABSENT", text, cure)
    for name in sorted(texts.keys() - choices if choices else ()):
        text = f"{PERSONAS}/{name}.txt is there, and predict.py does not offer {name}"
        file = quote(f"{PERSONAS}/{name}.txt")
        cure = f'Run rm {file}, or write "{name}" into `choices` of philosopher in predict.py'
        yield Finding("error", "PERSONA_NO_CHOICE", text, cure)
    for name, path in sorted(texts.items()):
        text = path.read_text(encoding="utf-8", errors="replace")
        cure = f"Write in UTF-8 what it should say, or run git checkout -- {PERSONAS}/{name}.txt"
        for code, fault in (FAULTS[form] for form in FAULTS if re.search(form, text)):
            yield Finding("error", code, f"{PERSONAS}/{name}.txt {fault}", cure)


def imported(project: Project) -> Iterator[tuple[str, str, str | None]]:
    """Each import of the code that can be read: its file, the module, and what is taken of it."""
    for name in _names(project):
        if not name.endswith(".py") or broken(project.root / name) is not None:
            continue
        for node in import_statements((project.root / name).read_bytes()):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name, None) for alias in node.names)
            else:
                above = name.split("/")[: -node.level] if node.level else []
                module = ".".join([*above, *filter(None, [node.module])])
                yield from ((name, module, alias.name) for alias in node.names)


@cache
def import_statements(source: bytes) -> list[ast.Import | ast.ImportFrom]:
    """At whatever depth."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def broken(file: Path) -> int | None:
    """The line in which a file is not Python; 0 where none is to blame, None where there is no fault."""
    try:
        compile(file.read_bytes() if file.suffix == ".py" else b"", file, "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 0
    except (OSError, ValueError):
        return 0
    return None


@cache
def members(file: Path) -> set[str]:
    """The names that a module defines."""
    symbols = symtable.symtable(file.read_text(encoding="utf-8-sig"), file.name, "exec").get_symbols()
    return {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}


def _names(project: Project) -> list[str]:
    """The files that the image cannot do without, and that are here: its plan, code, personas and pins."""
    paths = [path for path in (project.root / PACKAGE).rglob("*") if "__pycache__" not in path.parts]
    config = project.config
    run = (str(config.get(key) or "").partition(":")[0] for key in ("predict", "train"))
    named = ("cog.yaml", PINS, str(config["build"].get("python_requirements")), *run)
    paths += [project.root / name for name in named]
    return sorted(os.path.relpath(path, project.root) for path in paths if path.is_file())
