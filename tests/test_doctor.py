"""scripts/doctor names what is wrong with a project, each fault by its code, and nothing of a sound one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snb.settings import ROOT
from snb.weights import prepared
from snb.weights.checkpoint import CARD, INDEX
from snb.weights.lock import NAME, Entry, Lock, digests
from snb.weights.prepared import Card, Origin
from tests.hub import Fault, LoopbackHub, loopback_hub
from tests.sound_project import ADAPTER, BASE, LOGIN, MODEL, Sound, repositories, sound
from tools.publishing import (
    card_fit,
    contract,
    image_size,
    installed,
    preflight,
    registry_login,
    secret_scan,
    setup_time,
)
from tools.publishing.card_fit import card_of
from tools.publishing.finding import Finding
from tools.publishing.project import Project

GB = 10**9
TOKEN = "hf_" + "abcDEF0123456789" * 2  # of no account


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with loopback_hub() as server:
        repositories(server, tmp_path_factory.mktemp("tiny"))
        yield server


@pytest.fixture(scope="module")
def kept(server: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A sound project that no test changes."""
    return sound(tmp_path_factory.mktemp("kept"), server)


@pytest.fixture
def made(kept: Sound, server: LoopbackHub, tmp_path: Path) -> Iterator[Sound]:
    """A copy of it that a test may break; its hub is as it was afterwards."""
    shutil.copytree(kept.home, tmp_path / "home")
    copy = Sound(tmp_path / "home", server)
    copy.cog()
    copy.docker()
    server.requests.clear()
    yield copy
    server.token = None
    server.faults.clear()


def errors(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings if finding.level == "error"]


def coded(findings: list[Finding] | Iterator[Finding], code: str) -> Finding:
    """The one finding with a code."""
    [found] = [finding for finding in findings if finding.code == code]
    return found


def lose_adapter(made: Sound) -> None:
    shutil.rmtree(made.weights(ADAPTER))


def cut_shard(made: Sound) -> None:
    shard = sorted(made.weights(BASE).glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def alter_shard(made: Sound) -> None:
    shard = sorted(made.weights(BASE).glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")


def private(made: Sound) -> None:
    lose_adapter(made)
    made.server.token = "hf_of_somebody_else"


def lower_bound(made: Sound) -> None:
    predict = made.root / "predict.py"
    predict.write_text(predict.read_text().replace("le=2048", "le=1024", 1))


def take_input_out(made: Sound) -> None:
    predict = made.root / "predict.py"
    text = predict.read_text()
    start = text.index("        top_k: int = Input(")
    end = text.index("        repetition_penalty: float")
    predict.write_text(text[:start] + text[end:])


def old_schema(made: Sound) -> None:
    document = contract.derived(made.project())
    document["components"]["schemas"]["Input"]["properties"]["top_k"]["maximum"] = 7
    made.write(".cog/openapi_schema.json", json.dumps(document))


def notebook(made: Sound) -> None:
    cell = {"cell_type": "code", "source": ["import os\n", f'login("{TOKEN}")\n']}
    made.write("essai.ipynb", json.dumps({"cells": [cell], "nbformat": 4}, indent=1))


def bf16(made: Sound) -> None:
    made.configure({**made.project().baked, "SNB_PRECISION": "bf16"})


def no_program(name: str) -> Callable[[Sound], None]:
    """PATH without a program, this machine's own included."""

    def without(made: Sound) -> None:
        (made.home / "bin" / name).unlink()

    return without


T4 = {"card": card_of("t4")}
BROKEN: dict[str, tuple[Callable[[Sound], Any], dict[str, Any], str]] = {
    "a private adapter": (private, {}, "WEIGHTS_PRIVATE"),
    "a context of 40 GB": (lambda made: made.sparse("data/train.bin", 40 * GB), {}, "CONTEXT_TOO_LARGE"),
    "a secret in a notebook": (notebook, {}, "SECRET_IN_FILE"),
    "a stale schema": (old_schema, {}, "SCHEMA_STALE"),
    "bf16 on a T4": (bf16, T4, "CARD_CANNOT"),
    "a truncated shard": (cut_shard, {}, "WEIGHTS_DAMAGED"),
    "an altered shard": (alter_shard, {}, "WEIGHTS_DAMAGED"),
    "a narrowed input": (lower_bound, {}, "INPUT_NARROWED"),
    "a removed input": (take_input_out, {}, "INPUT_REMOVED"),
    "no login": (lambda made: shutil.rmtree(made.home / ".docker"), {}, "NOT_LOGGED_IN"),
    "no cog": (no_program("cog"), {}, "COG_ABSENT"),
    "an old cog": (lambda made: made.cog("0.16.9"), {}, "COG_OLD"),
    "no engine": (lambda made: made.docker(None), {}, "ENGINE_ABSENT"),
    "an old engine": (lambda made: made.docker("20.10.24"), {}, "ENGINE_OLD"),
    "a slow network": (lambda made: None, {"bytes_per_second": 100.0}, "SETUP_TOO_SLOW"),
    "a file of secrets": (lambda made: made.write(".env", "A=1\n"), {}, "SECRET_FILE"),
    "a secret in cog.yaml": (
        lambda made: made.configure({**made.project().baked, "MY_TOKEN": "x"}),
        {},
        "SECRET_IN_CONFIG",
    ),
    "an unknown key": (lambda made: made.configure(hardware="t4"), {}, "CONFIG_KEY"),
    "no such class": (lambda made: made.configure(predict="predict.py:Nobody"), {}, "SCHEMA_UNDERIVABLE"),
    "a schema of one's own": (
        lambda made: None,
        {"environ": {"COG_OPENAPI_SCHEMA": "x"}},
        "SCHEMA_OVERRIDDEN",
    ),
    "an unknown setting": (lambda made: made.configure({"SNB_PRECISON": "nf4"}), {}, "SETTINGS_BAD"),
    "a setting of the shell": (lambda made: None, {"environ": {"SNB_SLOTS": "4"}}, "SETTING_STAYS_HERE"),
    "a package without a version": (
        lambda made: made.write("requirements.txt", "torch\n"),
        {},
        "CONFIG_UNPINNED",
    ),
    "weights that are ignored": (
        lambda made: made.write(".dockerignore", "weights/school--base@*/*-of-*\n"),
        {},
        "WEIGHTS_INCOMPLETE",
    ),
}


@pytest.mark.parametrize(("broken", "changes", "code"), BROKEN.values(), ids=list(BROKEN))
def test_each_broken_project_is_named_by_its_own_code(
    made: Sound, broken: Callable[[Sound], Any], changes: dict[str, Any], code: str
) -> None:
    broken(made)
    findings = made.findings(**changes)
    assert set(errors(findings)) == {code}
    for finding in findings:
        assert finding.level == "ok" or finding.cure
        assert LOGIN not in str(finding)
        assert TOKEN not in str(finding)


def test_nothing_is_wrong_with_a_sound_project(kept: Sound) -> None:
    findings = kept.findings(card=card_of("t4"))
    assert [finding for finding in findings if finding.level != "ok"] == []
    assert len(findings) >= len(preflight.CHECKS)


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    kept: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: object) -> Iterator[Finding]:
        raise ZeroDivisionError(LOGIN)

    monkeypatch.setattr(preflight, "CHECKS", (("one", breaks), *preflight.CHECKS[-2:]))
    findings = kept.findings()
    assert [finding.code for finding in findings] == ["CHECK_FAILED", "SETUP_TIME", "CARD"]
    assert str(findings[0]) == "error        CHECK_FAILED: one: ZeroDivisionError. Report this bug"


def test_a_cog_yaml_that_is_none_is_named_and_what_does_not_need_it_is_checked(made: Sound) -> None:
    made.write("cog.yaml", f"build: [\n{TOKEN}")
    findings = made.findings()
    assert "CONFIG_UNREADABLE" in errors(findings)
    assert coded(findings, "LOGIN").level == "ok"
    assert coded(findings, "CONTEXT_UNJUDGED").level == "not checked"
    assert [f.found for f in findings if f.code == "SECRET_IN_FILE"] == [
        "cog.yaml, line 2: a Hugging Face token"
    ]
    assert TOKEN not in " ".join(map(str, findings))


# Programs and login


@pytest.mark.parametrize("version", ["0.23.1", "0.23.2", "0.24.0", "1.0.0"])
def test_cog_may_be_newer(made: Sound, version: str) -> None:
    made.cog(version)
    assert [finding.level for finding in installed.cog(made.project())] == ["ok"]


def test_docker_may_be_absent_or_without_buildx(made: Sound) -> None:
    made.program(
        "docker", 'sys.exit(1) if sys.argv[1] == "buildx" else print(\'{"Server": {"Version": "27.1"}}\')'
    )
    assert [finding.code for finding in installed.docker(made.project())] == ["DOCKER", "BUILDX_ABSENT"]
    empty = made.project(environ={"PATH": str(made.home)})
    assert errors(list(installed.docker(empty))) == ["DOCKER_ABSENT"]


HELPER = 'print(json.dumps({"ServerURL": "r8.im", "Username": "u", "Secret": %r})); sys.exit(%d)'


@pytest.mark.parametrize(
    ("config", "helper", "logged_in"),
    [
        ({"auths": {"r8.im": {"auth": "dTpw"}}}, None, True),
        ({"auths": {"r8.im": {}}}, None, False),
        ({"auths": {"ghcr.io": {"auth": "dTpw"}}}, None, False),
        ({"credsStore": "x", "auths": {"r8.im": {}}}, (LOGIN, 0), True),
        ({"credHelpers": {"r8.im": "x"}}, (LOGIN, 0), True),
        ({"credHelpers": {"ghcr.io": "x"}}, (LOGIN, 0), False),
        ({"credsStore": "x", "auths": {"r8.im": {}}}, ("", 0), False),
        ({"credsStore": "x"}, (LOGIN, 1), False),
        ({"credsStore": "absent"}, None, False),
        ({"credsStore": "absent", "auths": {"r8.im": {"auth": "dTpw"}}}, None, True),
    ],
)
def test_a_login_is_found_wherever_cog_leaves_it(
    made: Sound, config: dict[str, Any], helper: tuple[str, int] | None, logged_in: bool
) -> None:
    made.log_in(**config)
    if helper:
        made.program("docker-credential-x", HELPER % helper)
    [found] = registry_login.check(made.project())
    assert found.code == ("LOGIN" if logged_in else "NOT_LOGGED_IN")
    assert LOGIN not in str(found)


def test_dockers_configuration_may_be_elsewhere_or_damaged(made: Sound) -> None:
    (made.home / ".docker").rename(made.home / "elsewhere")
    assert errors(list(registry_login.check(made.project()))) == ["NOT_LOGGED_IN"]
    there = made.project(environ={"DOCKER_CONFIG": str(made.home / "elsewhere")})
    assert errors(list(registry_login.check(there))) == []
    (made.home / "elsewhere" / "config.json").write_text(f'["{LOGIN}"')
    [found] = registry_login.check(there)
    assert found.level == "error"
    assert LOGIN not in str(found)


# cog.yaml


def test_a_torch_without_a_base_image_is_a_warning(made: Sound) -> None:
    requirements = made.root / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("torch==2.10.0", "torch==2.13.0"))
    [found] = contract.config(made.project())
    assert (found.level, found.code) == ("warning", "CONFIG_TORCH_CUDA")


def test_every_fault_of_cog_yaml_is_named_at_once(made: Sound) -> None:
    made.configure(build={"python_version": "3.11", "colour": 1}, predict=None, model="r8.im/a/b")
    codes = errors(list(contract.config(made.project())))
    assert codes == ["CONFIG_KEY", "CONFIG_KEY", "CONFIG_PREDICT", "CONFIG_GPU", *["CONFIG_UNPINNED"] * 3]


def test_a_schema_that_cog_itself_wrote_is_not_stale(made: Sound) -> None:
    document = contract.derived(made.project())
    document["info"]["version"] = "0.23.4"
    made.write(".cog/openapi_schema.json", json.dumps(document))
    assert errors(list(contract.derivable(made.project()))) == []
    given = made.project(environ={"COG_OPENAPI_SCHEMA": ".cog/openapi_schema.json"})
    assert [finding.level for finding in contract.derivable(given)] == ["warning"]


def test_a_predict_py_that_python_cannot_read_is_named(made: Sound) -> None:
    made.write("predict.py", "class Predictor(:\n")
    assert errors(list(contract.derivable(made.project()))) == ["SCHEMA_UNDERIVABLE"]


# Weights


def test_a_public_adapter_may_be_left_out_and_its_download_counts(made: Sound) -> None:
    lose_adapter(made)
    project = made.project(environ={"HF_TOKEN": TOKEN})
    found = [finding for finding in project.weights.findings if "public" in finding.found]
    assert [finding.level for finding in found] == ["ok"]
    size = len(made.server.trees[made.server.commits[ADAPTER, "main"]]["adapter_model.safetensors"])
    assert [held.download for held in project.weights.held] == [size, 0]
    assert {request.headers["Authorization"] for request in made.server.requests} == {None}


def test_a_gated_repository_lists_its_files_for_everybody_and_is_private_all_the_same(made: Sound) -> None:
    lose_adapter(made)
    made.server.fail("HEAD", "adapter_config.json", *[Fault(403, {"X-Error-Code": "GatedRepo"})] * 9)
    assert coded(made.project().weights.findings, "WEIGHTS_PRIVATE").level == "error"
    assert made.server.asked("GET", "/revision/main")


def test_a_hub_that_does_not_answer_is_no_verdict(made: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_adapter(made)
    made.server.fail("GET", "/revision/main", *[Fault(503)] * 9)
    assert coded(made.project().weights.findings, "WEIGHTS_UNASKED").level == "not checked"
    made.server.requests.clear()
    monkeypatch.setattr("tools.publishing.image_weights.is_offline_mode", lambda: True)
    assert coded(made.project().weights.findings, "WEIGHTS_UNASKED").level == "not checked"
    assert made.server.requests == []


def test_weights_that_dockerignore_leaves_out_are_asked_for_at_the_hub(made: Sound) -> None:
    made.write(".dockerignore", "weights/school--adapter@*\n")
    assert "leaves it out; it is public" in " ".join(f.found for f in made.project().weights.findings)
    made.server.token = "hf_of_somebody_else"
    assert coded(made.project().weights.findings, "WEIGHTS_PRIVATE").level == "error"


def test_a_folder_outside_the_project_or_a_link_is_not_in_the_image(made: Sound) -> None:
    outside = made.weights(BASE).rename(made.home / "base")
    made.configure({"SNB_BASE_MODEL": str(outside), "SNB_ADAPTER": "none"})
    assert "it lies outside the project" in coded(made.project().weights.findings, "WEIGHTS_ABSENT").found
    (made.root / "weights" / "mine").symlink_to(outside)
    made.configure({"SNB_BASE_MODEL": "weights/mine", "SNB_ADAPTER": "none"})
    assert errors(list(made.project().weights.findings)) == ["WEIGHTS_ABSENT"]


@pytest.mark.parametrize("name", ["weights/mine", "/src/weights/mine"])
def test_a_folder_of_ones_own_is_inspected_and_named_as_in_the_image(made: Sound, name: str) -> None:
    made.weights(BASE).rename(made.root / "weights" / "mine")
    (made.root / "weights" / "mine" / NAME).unlink()
    made.configure({"SNB_BASE_MODEL": name, "SNB_ADAPTER": "none"})
    assert [finding.level for finding in made.project().weights.findings] == ["ok"]
    shard = sorted((made.root / "weights" / "mine").glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert errors(list(made.project().weights.findings)) == ["WEIGHTS_DAMAGED"]


def test_a_repository_without_safetensors_is_refused_before_it_is_published(made: Sound) -> None:
    made.server.push("school/pickle", {"adapter_config.json": b"{}", "adapter_model.bin": b"x"})
    made.configure({**made.project().baked, "SNB_ADAPTER": "school/pickle"})
    assert "pickles" in coded(made.project().weights.findings, "WEIGHTS_UNUSABLE").found


def prepare(made: Sound, precision: str = "nf4") -> Path:
    """Prepared weights in form: the base's files, with a card and a lock of their own."""
    base, adapter = made.weights(BASE), made.weights(ADAPTER)
    folder = made.root / "weights" / prepared.FOLDER
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns(".cache", NAME))
    origins = [
        Origin(name, "main", Lock.read(at).commit, "")  # type: ignore[union-attr]
        for name, at in ((BASE, base), (ADAPTER, adapter))
    ]
    Card(precision, *origins, tools={}, device="cpu").write(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    entries = {p.name: Entry(p.stat().st_size, sha) for p, sha in zip(files, digests(files), strict=True)}
    Lock("prepared", precision, "", entries).write(folder)
    made.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER})
    return folder


def test_prepared_weights_are_what_a_boot_reads_and_then_base_and_adapter_are_not(made: Sound) -> None:
    folder = prepare(made)
    survey = made.project().weights
    assert {Path(name).parent.name for name in survey.names} == {folder.name}
    assert [held.precision for held in survey.held] == ["nf4"]
    made.sparse(f"weights/{made.weights(BASE).name}/model-00009-of-00009.safetensors", 5 * GB)
    [found] = image_size.check(made.project())
    assert (found.level, found.code) == ("error", "CONTEXT_TOO_LARGE")
    assert "model-00009-of-00009.safetensors (5.0 GB)" in found.found


def test_prepared_weights_for_something_else_or_damaged_are_named(made: Sound) -> None:
    folder = prepare(made)
    made.configure({"SNB_BASE_MODEL": "school/other", "SNB_ADAPTER": ADAPTER})
    assert errors(list(made.project().weights.findings)) == ["WEIGHTS_MISMATCH"]
    made.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER})
    (folder / CARD).write_text("{}")
    assert errors(list(made.project().weights.findings)) == ["WEIGHTS_DAMAGED"]


def test_prepared_weights_that_are_left_out_leave_a_boot_to_merge(made: Sound) -> None:
    prepare(made)
    made.write(".dockerignore", f"weights/{prepared.FOLDER}\n")
    survey = made.project().weights
    assert coded(survey.findings, "WEIGHTS_LEFT_OUT").level == "warning"
    assert [held.source.role for held in survey.held] == ["adapter", "base"]


def test_prepared_weights_decide_the_precision(made: Sound) -> None:
    prepare(made, "bf16")
    [found] = card_fit.check(made.project(card=card_of("t4")))
    assert found.code == "CARD_CANNOT"
    assert "scripts/prepare-weights --precision" in found.cure


# The context, the time, the card


@pytest.mark.parametrize(
    ("size", "level", "code"),
    [
        (10**6, "ok", "CONTEXT"),
        (image_size.ALLOWANCE + 1, "warning", "CONTEXT_NEEDLESS"),
        (image_size.BOUND + 1, "error", "CONTEXT_TOO_LARGE"),
    ],
)
def test_what_no_boot_reads_is_named_with_its_size(made: Sound, size: int, level: str, code: str) -> None:
    made.sparse("notes/cours.bin", size)
    [found] = image_size.check(made.project())
    assert (found.level, found.code) == (level, code)
    assert ("notes/cours.bin" in found.found) is (level != "ok")


def test_weights_that_a_boot_reads_are_not_needless_however_large(made: Sound) -> None:
    folder = made.weights(BASE).rename(made.root / "weights" / "mine")
    for path in [*folder.glob("*.safetensors"), folder / INDEX, folder / NAME]:
        path.unlink()
    tensor = {"dtype": "U8", "shape": [3 * GB], "data_offsets": [0, 3 * GB]}
    header = json.dumps({"all": tensor}).encode()
    whole = made.write("weights/mine/model.safetensors", len(header).to_bytes(8, "little") + header)
    os.truncate(whole, 8 + len(header) + 3 * GB)
    made.configure({"SNB_BASE_MODEL": "weights/mine", "SNB_ADAPTER": "none"})
    [found] = image_size.check(made.project())
    assert found.code == "CONTEXT"
    assert found.found == "Docker would send 3.0 GB, of which a boot reads 3.0 GB as weights"


def test_what_dockerignore_and_cog_leave_out_is_not_sent(made: Sound) -> None:
    made.sparse(".venv/lib/torch.so", 5 * GB)
    made.sparse(".cog/cache/blob", 5 * GB)
    made.write("client/.env", f"A={TOKEN}\n")
    findings = made.findings()
    assert errors(findings) == []
    (made.root / ".dockerignore").unlink()
    findings = made.findings()
    assert set(errors(findings)) == {"CONTEXT_TOO_LARGE", "SECRET_FILE", "SECRET_IN_FILE"}
    assert ".venv" in coded(findings, "CONTEXT_TOO_LARGE").found
    assert ".cog" not in coded(findings, "CONTEXT_TOO_LARGE").found


def test_the_time_to_set_up_adds_up_by_hand(made: Sound) -> None:
    """The 14B, nothing in the image: 29.54 GB of bf16 at 2 Gbit/s, and 14.77 billion parameters to merge."""
    made.configure({"SNB_ADAPTER": "none"})
    made.server.fail("GET", "", *[Fault(503)] * 40)
    [found] = setup_time.check(made.project(bytes_per_second=250e6))
    assert "0 s for the image and 118 s for downloads, taking 2 Gbit/s; 269 s for loading" in found.found
    assert (found.level, found.code) == ("ok", "SETUP_TIME")
    codes = {rate: next(setup_time.check(made.project(bytes_per_second=rate))).code for rate in (120e6, 80e6)}
    assert codes == {120e6: "SETUP_SLOW", 80e6: "SETUP_TOO_SLOW"}


def test_what_is_in_the_image_counts_as_pulled(made: Sound) -> None:
    made.sparse("data/train.bin", 30 * GB)
    [found] = setup_time.check(made.project(bytes_per_second=100e6))
    assert "300 s for the image and 0 s for downloads" in found.found
    [found] = setup_time.check(made.project(bytes_per_second=40e6))
    assert found.code == "SETUP_TOO_SLOW"


@pytest.mark.parametrize(
    ("card", "precision", "level", "code", "cure"),
    [
        ("t4", "bf16", "error", "CARD_CANNOT", "SNB_PRECISION=nf4"),
        ("t4", "int8", "error", "CARD_TOO_SMALL", "SNB_PRECISION=nf4"),
        ("t4", "nf4", "warning", "CARD_FEWER_SLOTS", "SNB_SLOTS=3"),
        ("l40s", "bf16", "ok", "CARD", ""),
        ("a100", "auto", "ok", "CARD", ""),
    ],
)
def test_the_14b_on_each_card(
    made: Sound, card: str, precision: str, level: str, code: str, cure: str
) -> None:
    made.configure({"SNB_ADAPTER": "none", "SNB_PRECISION": precision})
    made.server.fail("GET", "", *[Fault(503)] * 40)
    [found] = card_fit.check(made.project(card=card_of(card)))
    assert (found.level, found.code) == (level, code)
    assert cure in found.cure


def test_without_a_card_every_one_is_judged(made: Sound) -> None:
    made.configure({"SNB_ADAPTER": "none", "SNB_PRECISION": "bf16"})
    made.server.fail("GET", "", *[Fault(503)] * 40)
    [found] = card_fit.check(made.project())
    assert found.found.endswith(
        "l40s: bf16, 16 slots; a100: bf16, 16 slots; h100: bf16, 16 slots; too small: t4"
    )


def test_a_model_that_no_card_holds_is_an_error_without_a_card_too(made: Sound) -> None:
    files = dict(made.server.trees[made.server.commits[BASE, "main"]])
    wide = {"hidden_size": 8192, "intermediate_size": 49152, "num_hidden_layers": 160}
    config = {**json.loads(files["config.json"]), **wide}
    config.pop("layer_types", None)  # one for each layer
    files["config.json"] = json.dumps(config).encode()
    made.server.push("school/huge", files)
    made.configure({"SNB_BASE_MODEL": "school/huge", "SNB_ADAPTER": "none"})
    [found] = card_fit.check(made.project())
    assert (found.level, found.code) == ("error", "CARD_TOO_SMALL")


# The command


def doctor(made: Sound, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "doctor"), "--project", str(made.root), *words]
    return subprocess.run(
        command, env={**made.environ, **environ}, capture_output=True, text=True, timeout=120
    )


def test_the_command_prints_a_line_for_each_finding_and_ends_with_the_worst(made: Sound) -> None:
    published = ["--published", str(made.home / "published.json"), "--hardware", "t4"]
    done = doctor(made, MODEL, *published)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "error: 0, not checked: 0, warning: 0, ok: 13"
    assert done.stderr == ""
    lose_adapter(made)
    made.server.token = "hf_of_somebody_else"
    done = doctor(made, f"r8.im/{MODEL}", *published, "--json", HF_TOKEN="hf_of_somebody_else")
    assert done.returncode == 1
    [bad] = [finding for finding in json.loads(done.stdout) if finding["level"] == "error"]
    assert bad["code"] == "WEIGHTS_PRIVATE"
    assert done.stderr == ""


def test_the_command_refuses_a_name_or_a_rate_that_is_none(made: Sound) -> None:
    for words in (["owner"], ["--bandwidth", "0"]):
        done = doctor(made, *words)
        assert done.returncode == 2
        assert "usage:" in done.stderr


def test_this_project_has_nothing_to_hide_and_nothing_needless(tmp_path: Path) -> None:
    """What is in the repository, whatever else lies in this working copy's ignored folders."""
    project = Project(ROOT, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, None, None, 250e6)
    assert [finding.level for finding in secret_scan.check(project)] == ["ok"]
    assert errors(list(contract.config(project))) == []
