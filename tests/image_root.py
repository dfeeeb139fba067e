"""Builds and runs images by the steps of their Dockerfiles, on this machine's own files, without an engine.

dockerfile-parse reads the steps. Each runs in namespaces of its own, without a network, in an overlay above
the machine's root, so nothing stays mounted and nothing is written outside a folder of the test.
"""

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from snb.front.process_group import end, start
from snb.settings import ROOT
from tests.hosts import tools
from tests.waiting import until
from tools.publishing.project import Project
from tools.serving import schema
from tools.serving.server import before

PARSE = """
import json, sys
from dockerfile_parse import DockerfileParser

file = DockerfileParser(sys.argv[1])
print(json.dumps({"steps": file.structure, "variables": file.envs}))
"""
# The tmpfs hides an environment below /tmp, so it is mounted again.
ENTER = f"""
prefix={shlex.quote(sys.prefix)}
folder=$1 user=$2 option=$3
shift 3
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p ".$prefix"
mount --bind "$prefix" ".$prefix"
mount -o "remount,$option" "$folder/root"
ip link set lo up
exec chroot --userspec "$user" --groups= . /usr/bin/env --ignore-environment --chdir=/src "$@"
"""
NAMESPACES = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child")


def dockerfile(file: Path) -> dict[str, Any]:
    """The steps of a Dockerfile, and the variables that its last stage sets."""
    command = [str(tools() / "python"), "-c", PARSE, str(file)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)  # type: ignore[no-any-return]


class Image:
    """A folder laid over the machine's root, and the command that starts in it."""

    def __init__(self, folder: Path, below: "Image | None" = None) -> None:
        self.folder = folder
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)
        self.environment: dict[str, str] = dict(below.environment) if below else {}
        self.user: str = below.user if below else "0:0"
        self.command: list[str] = below.command if below else []
        if below:  # a copy: overlayfs does not take a lower folder inside another
            subprocess.run(["cp", "--archive", below.folder / "upper", folder], check=True)

    @classmethod
    def of_cog(cls, folder: Path) -> "Image":
        """As Cog 0.23.1 builds it (pkg/dockerfile/standard_generator.go), from files that only root reads."""
        image = cls(folder)
        source = folder / "upper" / "src"
        with Project(ROOT, bare=True).context.staged() as stage:
            shutil.copytree(stage, source, symlinks=True, ignore=shutil.ignore_patterns(".cog"))
        schema.write(source)
        subprocess.run(["chmod", "--recursive", "go-rwx", source], check=True)
        image.environment = {"PATH": before("PATH", Path(sys.executable).parent), "PYTHONUNBUFFERED": "1"}
        image.environment |= {"COG_PREDICT_TYPE_STUB": "predict.py:Predictor", "COG_MAX_CONCURRENCY": "32"}
        for step in yaml.safe_load((ROOT / "cog.yaml").read_text())["build"]["run"]:
            image.run(step)
        return image

    def built(self, folder: Path, file: Path, context: Path) -> "Image":
        """This image with the steps of a Dockerfile on top. Raises CalledProcessError if a RUN fails."""
        image, parsed = Image(folder, self), dockerfile(file)
        for step in parsed["steps"]:
            kind, value = step["instruction"], step["value"]
            match kind:
                case "RUN":
                    image.run(value)
                case "COPY":
                    image.copy(shlex.split(value), context)
                case "ENV":
                    image.environment |= parsed["variables"]
                case "USER":
                    image.user = value
                case "CMD":
                    image.command = json.loads(value)
                case _:
                    assert kind in ("ARG", "FROM", "EXPOSE", "COMMENT"), kind
        return image

    def copy(self, words: list[str], context: Path) -> None:
        """COPY --link of files, as the strictest BuildKit does it: new folders get the mode too."""
        options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
        *patterns, target = (word for word in words if not word.startswith("--"))
        assert options.keys() == {"link", "chmod"}
        mode, upper = int(options["chmod"], 8), self.folder / "upper"
        files = [file for pattern in patterns for file in context.glob(pattern)]
        assert files, f"no file is called {patterns}"
        folder = upper / target.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        made = [Path(shutil.copy(file, folder)) for file in files]
        for path in (*made, folder, *folder.parents):
            if upper in path.parents:
                path.chmod(mode)

    def run(self, step: str) -> None:
        """Runs a step of RUN. Raises CalledProcessError if it fails."""
        command = self._command(["/bin/sh", "-c", step], self.environment, self.user)
        subprocess.run(command, check=True, capture_output=True, text=True)

    @contextlib.contextmanager
    def started(self, log: IO[str], environment: Mapping[str, str]) -> Iterator["Container"]:
        """Starts a container with a read-only root and these further variables; it ends with the block."""
        command = self._command(self.command, {**self.environment, **environment}, self.user, "ro")
        process = start(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            until(lambda: len(children.read_text().split()) == 2)  # process_group's watcher, and the program
            yield Container(process, int(children.read_text().split()[1]))
        finally:
            end(process)

    def _command(
        self, command: list[str], environment: Mapping[str, str], user: str, option: str = "rw"
    ) -> list[str]:
        variables = [f"{name}={value}" for name, value in environment.items()]
        arguments = [str(self.folder), user, option, *variables, *command]
        return [*NAMESPACES, "bash", "-ec", ENTER, "image", *arguments]


class Container:
    """A running image, whose first process is PID 1 there."""

    def __init__(self, process: "subprocess.Popen[bytes]", pid: int) -> None:
        self.process, self.pid = process, pid
        self.inside = ("nsenter", "--net", "--target", str(pid))

    def asked(self, *curl: str) -> str:
        """The output of curl in the container's network; empty if nothing answers."""
        command = [*self.inside, "curl", "--silent", "--max-time", "120", *curl]
        return subprocess.run(command, capture_output=True, text=True).stdout
