"""docs/repli.md: each block runs as a reader would type it, and the real tool parses each command.

A block runs alone, as in a new terminal, with stand-ins on PATH that record how they were called. Each call
is then given to the real tool, installed from its registry, without a network: `hf`, `vastai`, `sky`,
`netlify`, `docker`, Compose, `curl`, `git`, `npm`, `pip` and our own scripts. Requests are checked against
the schema in RunPod's own MCP server and the types of Replicate's own client. Calls of `cog` are not checked:
it is in no registry.
"""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from replicate.deployment import Deployments

from snb.settings import ROOT
from tests import scripts
from tests.hosts import node, npm_tools, tools

pytestmark = pytest.mark.slow  # a dozen tools, most of which take a second to start

NAMES = "|| (umask 077 && cat > ~/.spinoza.env)"
"""Occurs only in the block that writes the file of names."""
TEXT = (ROOT / "docs" / "repli.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^( *)```sh\n.*?^\1```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
PROGRAMS = ("cog", "curl", "docker", "git", "hf", "netlify", "npm", "pip", "python3", "sky", "vastai")
INLINE = re.compile(rf"`((?:\w+=\S+ )?(?:scripts/[\w-]+|{'|'.join(PROGRAMS)}) [^`…\n]+)`")
STAND_IN = f"""#!{sys.executable} -IS
import json, os, pathlib, sys
name = os.path.relpath(os.path.realpath(sys.argv[0]), os.environ["DESK"])
call = [name.removeprefix("bin/"), sys.argv[1:], sys.stdin.read()]
with (pathlib.Path(os.environ["DESK"]) / "calls").open("a") as calls:
    calls.write(json.dumps(call) + "\\n")
print('{{"id":"qwen/qwen"}}')
"""
FILL = f"""#!{sys.executable}
import pathlib, re, sys
file = pathlib.Path(sys.argv[1])
text = file.read_text().replace("IMAGE= ", "IMAGE=ghcr.io/owner/spinoza:1 ")
text = text.replace("IMAGE_PUBLIQUE= ", "IMAGE_PUBLIQUE=ghcr.io/owner/code:1 ")
file.write_text(re.sub(r"=(?= |$)", "=owner", text, flags=re.MULTILINE))
"""
"""The reader's editor: it gives every empty name a value."""
PUT_IN = {"OFFRE": "1", "INSTANCE": "1", "VERSION": 64 * "0"}
"""What a reader puts in place of words in capitals, where not just any word will do."""
CAPITALS = re.compile(
    r"(?<![\w${])(?:ADRESSE|PREMIERE_ADRESSE|SECONDE_ADRESSE|VERSION|POD|OFFRE|INSTANCE|DOMAINE|COMPTE"
    r"|CLE_VAST|DEPOT|CLE|JETON)(?![\w=:}])"
)
NO_NETWORK = ("unshare", "--map-root-user", "--net")
UNKNOWN = "--an-option-that-nobody-has"
EACH = """if True:
    import importlib, json, os, sys
    main, running = importlib.import_module(sys.argv[1]).main, []
    for line in json.load(sys.stdin):
        read, write = os.pipe()
        if not (pid := os.fork()):  # most of what a program takes is its start
            os.dup2(write, 1), os.dup2(write, 2)
            sys.argv = ["it", *line]
            sys.exit(main())
        os.close(write)
        running.append((pid, open(read)))
    for pid, output in running:
        text = output.read()
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text]))
"""
NETLIFY = """
const [cli, lines] = process.argv.slice(1);
const { createMainCommand } = await import(`${cli}/dist/commands/main.js`);
const { runProgram } = await import(`${cli}/dist/utils/run-program.js`);
process.exit = (code) => { throw new Error(`it ends with ${code}`); };
const write = process.stdout.write.bind(process.stdout);
for (const line of JSON.parse(lines)) {
  let output = "";
  process.stdout.write = process.stderr.write = (text) => (output += text);
  const argv = ["node", "netlify", ...line];
  await runProgram(createMainCommand(), argv).catch((error) => (output += error.message));
  write(`${JSON.stringify(output)}\\n`);
}
"""
Call = tuple[str, list[str], str]
"""A program, its arguments, and its standard input."""


def blocks() -> list[str]:
    """The shell blocks of the page, without their indentation; then the commands in its sentences."""
    found = re.finditer(r"^( *)```sh\n(.*?)^\1```$", TEXT, re.MULTILINE | re.DOTALL)
    texts = [re.sub(rf"^{match[1]}", "", match[2], flags=re.MULTILINE) for match in found]
    texts.sort(key=lambda text: NAMES not in text)  # what the page says to do before anything else
    texts += [f". ~/.spinoza.env\n{command}" for command in INLINE.findall(PROSE)]
    return [CAPITALS.sub(lambda word: PUT_IN.get(word[0], "owner"), text) for text in texts]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is both the project and the reader's home; scripts and programs in it are stand-ins."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("bin", "scripts", "weights/prepared", "build/page"):  # the reader has these by then
        (folder / name).mkdir(parents=True)
    (folder / "spinoza").symlink_to(folder)  # what `git clone` makes
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("space"))
    shutil.copytree(ROOT / "client", folder / "client", ignore=shutil.ignore_patterns("node_modules"))
    own = re.findall(r"scripts/([\w-]+)", TEXT)
    for path in [
        *(folder / "bin" / name for name in (*PROGRAMS, "python", "sleep")),
        *(folder / "scripts" / name for name in own),
    ]:
        program(path, STAND_IN)
    program(folder / "bin" / "editor", FILL)
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def typed(block: str, desk: Path, **more: str) -> tuple[int, str, list[Call]]:
    """Runs a block in a shell of its own; returns its exit code, its output, and its calls."""
    log = desk / "calls"
    log.unlink(missing_ok=True)
    environment = {
        "PATH": f"{desk / 'bin'}:/usr/bin:/bin",
        "HOME": str(desk),
        "DESK": str(desk),
        "EDITOR": "editor",
    }
    done = run("bash", "-euo", "pipefail", "-c", block, cwd=desk, environment={**environment, **more})
    return *done, [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def run(*command: str | Path, cwd: Path, environment: dict[str, str], given: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def alone(*command: str | Path, desk: Path, given: str = "", **more: str) -> tuple[int, str]:
    """Runs a real tool without any network, which the kernel enforces; returns its exit code and output."""
    if run(*NO_NETWORK, "true", cwd=desk, environment=dict(os.environ))[0]:
        pytest.skip("this machine has no `unshare --map-root-user --net`")
    environment = {"PATH": os.environ["PATH"], "HOME": str(desk), "NO_COLOR": "1", **more}
    return run(*NO_NETWORK, *command, cwd=desk, environment=environment, given=given)


@pytest.fixture(scope="module")
def calls(desk: Path) -> list[Call]:
    """Every call of a program on the page, block by block, each block in a new terminal."""
    called: list[Call] = []
    for block in blocks():
        code, output, these = typed(block, desk)
        assert code == 0, (block, output)
        assert these or NAMES in block, f"calls no program that this test knows: {block}"
        called += these
    return called


def of(calls: Sequence[Call], name: str) -> Iterator[list[str]]:
    """The arguments of each call of a program; fails if there is none."""
    found = [arguments for called, arguments, _ in calls if called == name]
    assert found, f"the page does not call {name}"
    yield from found


def test_the_names_are_written_once_for_the_reader_alone(calls: list[Call], desk: Path) -> None:
    file = desk / ".spinoza.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [key] = re.findall(r"^export SNB_API_KEY=(\w{64}) ", file.read_text(), re.MULTILINE)
    assert typed(blocks()[0], desk)[0] == 0
    assert key in file.read_text(), "the step, typed again, made another key"


def test_every_name_that_a_block_uses_is_in_the_file_and_may_not_be_empty() -> None:
    first, *others = blocks()
    used = re.findall(r"(?<!\\)\$\{?((?!CONTAINER)[A-Z_]+)(\W\W)", "\n".join(others))
    own = {"CARTE", "REGIONS", "DISQUE"}
    assert {name for name, _ in used} - own <= {*re.findall(r"^export (\w+)=", first, re.MULTILINE)}
    assert {after for name, after in used if name not in own} == {":?"}


def test_after_a_card_that_is_taken_come_others_and_all_regions(calls: list[Call], desk: Path) -> None:
    loops = [text for text in blocks() if "for CARTE in" in text]
    for block in loops:
        _, _, called = typed(block.replace("&& break", "|| true; false && break"), desk)
        bodies = [json.loads(given) for name, _, given in called if name == "curl"]
        cards = [body["gpu"]["id"] for body in bodies]
        cards += [words[4] for name, words, _ in called if name == "hf" and words[1] == "settings"]
        assert len({*cards}) >= 3
        regions = {len(body.get("dataCenterIds", ())) for body in bodies}
        assert len(regions) == (2 if "REGIONS" in block else bool(bodies))
    assert len(loops) == 3


def test_our_own_scripts_understand_their_command_lines(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    own = [(name.removeprefix("scripts/"), arguments) for name, arguments, _ in calls if "/" in name]
    assert own
    for name, arguments in own:
        # Everything else was right, or argparse would have reported that first.
        assert scripts.code(name, *arguments, UNKNOWN) == 2, (name, arguments)
        assert capsys.readouterr().err.rstrip().endswith(f"unrecognized arguments: {UNKNOWN}"), (
            name,
            arguments,
        )


def each(python: Path, module: str, lines: list[list[str]], desk: Path, **more: str) -> list[tuple[int, str]]:
    """Exit code and output of the program `module` for each of these arguments; it is loaded once."""
    code, output = alone(python, "-c", EACH, module, desk=desk, given=json.dumps(lines), **more)
    assert code == 0, output
    return [tuple(json.loads(line)) for line in output.splitlines()]


def test_hugging_face_understands_its_commands(calls: list[Call], desk: Path) -> None:
    lines = [*of(calls, "hf")]
    keys = {"HF_TOKEN": "hf_x", "SNB_API_KEY": "key", "REPLICATE_API_TOKEN": "r8_x"}
    for code, output in each(Path(sys.executable), "huggingface_hub.cli.hf", lines, desk, **keys):
        assert code == 1, output
        assert re.search("connect|resolve|network", output, re.IGNORECASE), output


def test_no_command_line_of_hf_or_sky_has_a_key_and_what_is_handed_out_may_only_read(
    calls: list[Call], desk: Path
) -> None:
    names = (desk / ".spinoza.env").read_text()
    assert f":{desk}/.venv/bin:" in names  # its hf is the version tested here
    [key] = re.findall(r"^export SNB_API_KEY=(\w+)", names, re.MULTILINE)
    assert not [words for name, words, _ in calls if name in ("hf", "sky") and key in " ".join(words)]
    assert {*re.findall(r'HF_TOKEN(?:": "|=)\$\{(\w+)', TEXT)} == {"HF_LECTURE"}
    assert "--secrets HF_TOKEN" not in TEXT
    assert TEXT.count(" && sleep 30 && hf spaces wait") == 1  # the previous state would end the loop


def test_vast_understands_its_commands(calls: list[Call], desk: Path) -> None:
    lines = [["--api-key", "x", "--retry", "1", *arguments] for arguments in of(calls, "vastai")]
    for line, (code, output) in zip(
        lines, each(tools() / "python", "vastai.cli.main", lines, desk), strict=True
    ):
        assert code != 2, output
        assert not re.search("usage:|unrecognized", output, re.IGNORECASE), output
        assert "vast.ai" in output or "set api-key" in " ".join(line), output


def test_a_rented_container_serves_and_deletes_itself_after_six_hours(calls: list[Call], desk: Path) -> None:
    commands = [body["args"] for _, body in bodies(calls, "https://api.runpod.io/v2/pods") if body]
    [create] = [arguments for arguments in of(calls, "vastai") if arguments[0] == "create"]
    assert "--cancel-unavail" in create  # else one that is refused is paid
    commands.append(shlex.join(create[create.index("--args") + 1 :]))
    own = {"RUNPOD_POD_ID": "it", "RUNPOD_API_KEY": "k", "CONTAINER_ID": "it", "CONTAINER_API_KEY": "k"}
    assert len(commands) == 3
    for command in commands:
        code, output, called = typed(command.replace("/workspace", str(desk)), desk, **own)
        assert code == 0, output
        by_name = {name: arguments for name, arguments, _ in called}
        assert by_name["sleep"] == ["6h"]
        assert by_name["curl"][:4] == ["--request", "DELETE", "--oauth2-bearer", "k"]
        assert re.fullmatch(
            r"https://(api\.runpod\.io/v2/pods/it|console\.vast\.ai/\S+/it/)", by_name["curl"][4]
        )
        serve = by_name.get("python", by_name.get("scripts/serve", []))
        assert serve[-4:] == ["--host", "0.0.0.0", "--port", "7860"], [name for name, *_ in called]


def test_skypilot_understands_its_commands_and_ends_a_machine_by_itself(
    calls: list[Call], desk: Path
) -> None:
    parse = """if True:
        import json, sys
        from sky import clouds
        from sky.client.cli.command import cli
        from click import NoSuchOption
        def read(arguments):
            context, command = cli.make_context("sky", [], resilient_parsing=True), cli
            while hasattr(command, "commands"):
                _, command, arguments = command.resolve_command(context, arguments)
            return command, command.make_context("sky", arguments).params
        for arguments in json.loads(sys.argv[1]):
            command, parameters = read(arguments)
            if command.name == "launch":
                assert parameters["down"] and parameters["wait_for"] == "none", parameters
                assert parameters["idle_minutes_to_autostop"] == 360, parameters
        try:
            sys.exit(read(["down", sys.argv[2]]))
        except NoSuchOption:
            pass
        down = clouds.CloudImplementationFeatures.AUTODOWN
        for cloud in (clouds.AWS, clouds.GCP, clouds.Azure, clouds.RunPod, clouds.Vast):
            assert down not in getattr(cloud, "_CLOUD_UNSUPPORTED_FEATURES", {}), cloud
    """
    given = list(of(calls, "sky"))
    assert any(arguments[0] == "launch" for arguments in given)
    program = (tools() / "python", "-c", parse, json.dumps(given), UNKNOWN)
    code, output = alone(*program, desk=desk, SNB_API_KEY="key")
    assert code == 0, output


def test_netlify_understands_its_commands(calls: list[Call], desk: Path) -> None:
    wrong = (
        "unknown (option|command)|missing required argument|too many arguments|cannot be used|non-development"
    )
    # Wrong lines, one of which the page used to have, must be reported.
    broken = [["env:set", "A", "b", "--secret"], ["deploy", UNKNOWN]]
    lines = [*of(calls, "netlify"), *broken]
    program = ("--input-type=module", "--eval", NETLIFY, npm_tools() / "netlify-cli", json.dumps(lines))
    site = {"NETLIFY_AUTH_TOKEN": "x", "NETLIFY_SITE_ID": "site", "CI": "1"}
    code, output = alone(node(), *program, desk=desk, **site)
    assert code == 0, output
    outputs = [json.loads(line) for line in output.splitlines()]
    assert len(outputs) == len(lines)
    for line, said in zip(lines, outputs, strict=True):
        assert bool(re.search(wrong, said)) == (line in broken), (line, said)


def test_the_site_gets_both_keys_as_secrets_and_loses_the_first_spaces_prefix(calls: list[Call]) -> None:
    given = [*of(calls, "netlify")]
    assert {arguments[1] for arguments in given if "--secret" in arguments} == {
        *("SNB_API_KEY", "REPLICATE_API_TOKEN", "SNB_OPENAI_TOKEN")
    }
    assert given.count(["env:unset", "SNB_API_PREFIX", "--force"]) == given.count(
        ["deploy", "--trigger", "--prod"]
    )


def test_docker_and_compose_understand_their_commands(calls: list[Call], desk: Path) -> None:
    [compose] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    for arguments in of(calls, "docker"):
        command, rest = (compose, arguments[1:]) if arguments[0] == "compose" else ("docker", arguments)
        if not shutil.which(command):
            continue  # Docker's client is enough; without it this is not checked
        code, output = alone(command, *rest, "--help", desk=desk)
        assert code == 0, (arguments, output)
        assert alone(command, *rest, UNKNOWN, "--help", desk=desk)[0], arguments


def test_what_is_public_has_a_repository_of_its_own_and_curl_reads_the_registrys_token(
    calls: list[Call],
) -> None:
    assert "IMAGE=${IMAGE_PUBLIQUE:?}" in TEXT
    assert TEXT.count("jamais public le dépôt de `IMAGE`") == 2
    images = [arguments for arguments in of(calls, "scripts/image") if "--without-weights" in arguments]
    assert images == [["--without-weights", "ghcr.io/owner/code:1"]]
    assert not re.search(r"^ *curl .*REGISTRE_JETON", TEXT, re.MULTILINE)


def test_a_machine_may_pull_the_private_image_before_compose_does() -> None:
    [up] = [block for block in blocks() if "up --detach" in block]
    assert up.index("docker login") < up.index("up --detach")


def test_the_settings_that_the_page_writes_are_those_that_compose_reads(
    calls: list[Call], desk: Path
) -> None:
    [compose] = tools().parent.glob("lib/python3*/site-packages/compose/docker-compose")
    code, output = alone(compose, "--file", desk / "deploy" / "compose.yaml", "config", desk=desk)
    assert code == 0, output
    assert "image: ghcr.io/owner/spinoza:1" in output
    assert re.search(r"SNB_API_KEY: [0-9a-f]{64}", output)
    assert stat.S_IMODE((desk / "deploy" / ".env").stat().st_mode) == 0o600
    assert run("git", "check-ignore", "deploy/.env", cwd=ROOT, environment=dict(os.environ))[0] == 0


def test_curl_understands_its_commands_and_shows_a_refusal(calls: list[Call], desk: Path) -> None:
    for name, arguments, given in calls:
        if name == "curl":
            code, output = alone("curl", *arguments, desk=desk, given=given)
            assert code == 6, (arguments, output)  # cannot resolve the host; 2 is a bad command line
            assert "--fail-with-body" in arguments


def bodies(calls: Sequence[Call], url: str) -> Iterator[tuple[str, Any]]:
    """Method and body of each curl request to a URL that starts with `url`."""
    for name, arguments, given in calls:
        if name == "curl" and any(argument.startswith(url) for argument in arguments):
            options = dict(pairwise(arguments))
            data = options.get("--data")
            method = options.get("--request", "POST" if data else "GET")
            yield method, json.loads(given if data == "@-" else data) if data else None


def test_replicates_own_client_has_the_fields_that_are_sent(calls: list[Call]) -> None:
    kinds = {"POST": Deployments.CreateDeploymentParams, "PATCH": Deployments.UpdateDeploymentParams}
    sent = [*bodies(calls, "https://api.replicate.com/v1/deployments")]
    assert [method for method, _ in sent] == ["POST", "PATCH", "PATCH", "PATCH"]
    assert [*sent[1][1]] == ["version"]
    for method, body in sent:
        kinds_of = get_type_hints(kinds[method])
        assert all(isinstance(value, kinds_of[name]) for name, value in body.items())
    assert sent[-1][1] == {"min_instances": 0, "max_instances": 0}


def test_runpods_own_schema_takes_what_is_sent(calls: list[Call], desk: Path) -> None:
    server = npm_tools() / "@runpod" / "mcp-server" / "dist" / "stdio.mjs"
    client = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": client}
    messages: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    given = "".join(json.dumps(message) + "\n" for message in messages)
    _, output = alone(node(), server, desk=desk, given=given, RUNPOD_API_KEY="x")
    [listing] = [
        json.loads(line) for line in output.splitlines() if line.startswith("{") and '"id":2' in line
    ]
    schemas = {tool["name"]: tool["inputSchema"] for tool in listing["result"]["tools"]}
    validate = """if True:
        import json, jsonschema, sys
        schema, bodies = json.load(sys.stdin)
        for body in bodies:
            jsonschema.Draft202012Validator(schema).validate({"body": body})
    """
    tools_of = {f"{tool}s": f"create-{tool}" for tool in ("pod", "network-volume")}
    tools_of["registries"] = "create-registry"
    volume = json.loads(re.findall("`DISQUE='([^']*)'`", PROSE)[0])
    for path, tool in tools_of.items():
        sent = [
            body for method, body in bodies(calls, f"https://api.runpod.io/v2/{path}") if method == "POST"
        ]
        assert sent
        sent += [{**body, "mounts": volume} for body in sent if "mounts" in body]
        for known, extra in ((True, {}), (False, {"terminateAfter": "6h"})):
            text = json.dumps([schemas[tool], [body | extra for body in sent]])
            code, output = alone(tools() / "python", "-c", validate, desk=desk, given=text)
            assert (code == 0) is known, output


def test_git_npm_pip_and_python_understand_their_commands(calls: list[Call], desk: Path) -> None:
    assert all(alone("git", *arguments, desk=desk)[0] == 128 for arguments in of(calls, "git"))  # 129: usage
    for arguments in of(calls, "python3"):
        assert alone("python3", *arguments, "--help", desk=desk)[0] == 0
    for arguments in of(calls, "pip"):
        code, output = alone(
            sys.executable, "-m", "pip", *arguments, "--dry-run", "--retries", "0", desk=desk
        )
        assert code != 2, output
        assert "Invalid requirement" not in output
    if shutil.which("npm"):
        for arguments in {" ".join(line): line for line in of(calls, "npm")}.values():
            assert (
                "Unknown cli config" not in alone("npm", *arguments, "--dry-run", "--offline", desk=desk)[1]
            )
