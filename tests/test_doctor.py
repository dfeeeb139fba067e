"""scripts/doctor names each fault of a project by its code, and finds none in a sound one."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from snb.settings import ROOT
from snb.weights.checkpoint import CARD
from snb.weights.lock import NAME
from tests import scripts
from tests.hub import Fault
from tests.replicate_server import MODEL
from tests.sound_project import ADAPTER, BASE, LOGIN, Sound, sound
from tools.benchmarking.bounds import SIZES
from tools.publishing import doctor, layers, limits, secret_scan
from tools.publishing.build_context import BuildContext
from tools.publishing.finding import Finding
from tools.publishing.project import Project

pytestmark = pytest.mark.slow  # every test reads a whole project

WIDE = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
SECRET = "hf_" + "abcDEF0123456789" * 2  # of no account
PINNED = (ROOT / "requirements.txt").read_text(encoding="utf-8")


TYPED = re.compile(r"\b([Rr]un|[Ww]rite|Delete the line|scripts/|SNB_\w+=)|Settings: SNB_")
"""What a cure must contain: something to type, a command or what to write where."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sound]:
    with sound(tmp_path, monkeypatch) as made:
        yield made


def errors(findings: Iterator[Finding] | list[Finding]) -> list[str]:
    return [finding.code for finding in findings if finding.level == "error"]


def weights(made: Sound) -> list[tuple[str, str]]:
    """Levels and codes of the findings on adapter and base, or on prepared weights."""
    return [(held.finding.level, held.finding.code) for held in made.project().weights]


def alter_shard(made: Sound) -> None:
    shard = sorted(made.weights(BASE).glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")


def lose_private_adapter(made: Sound) -> None:
    shutil.rmtree(made.weights(ADAPTER))
    made.hub.token = "hf_of_somebody_else"


def replace(made: Sound, name: str, old: str, new: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert old in text
    made.write(name, text.replace(old, new, 1))


def set_build(**more: Any) -> Callable[[Sound], None]:
    return lambda made: made.configure(build={**made.project().config.build.model_dump(), **more})


def other_adapter(made: Sound) -> None:
    """Names an adapter without a lock, trained on another base."""
    folder = made.weights(ADAPTER).rename(made.root / "weights" / "mine")
    (folder / NAME).unlink()
    save_file({WIDE: torch.rand(1, 4096)}, folder / "adapter_model.safetensors")
    set_environment(SNB_ADAPTER="weights/mine")(made)


def set_environment(**more: str) -> Callable[[Sound], None]:
    return lambda made: made.configure({**made.project().environment, **more})


BROKEN: dict[str, tuple[Callable[[Sound], object], str]] = {
    "a private adapter": (lose_private_adapter, "WEIGHTS_PRIVATE"),
    "an altered shard": (alter_shard, "WEIGHTS_DAMAGED"),
    "weights that are ignored": (
        lambda made: made.write(".dockerignore", "weights/school--base@*/*-of-*\n"),
        "WEIGHTS_INCOMPLETE",
    ),
    "an adapter of another base": (other_adapter, "ADAPTER_MISMATCH"),
    "a secret in an example": (
        lambda made: made.write(".env.example", f"HF_TOKEN={SECRET}\n"),
        "SECRET_IN_FILE",
    ),
    "a secret in UTF-16": (
        lambda made: (made.root / "it's.txt").write_bytes(SECRET.encode("utf-16")),
        "SECRET_IN_FILE",
    ),
    "a secret beside weights": (
        lambda made: (made.weights(BASE) / "notes.txt").write_text(SECRET),
        "SECRET_IN_FILE",
    ),
    "a file of secrets": (lambda made: made.write(".ENV", "A=1\n"), "SECRET_FILE"),
    "a secret in cog.yaml": (set_environment(MY_TOKEN="x"), "SECRET_IN_CONFIG"),
    "bf16 on a T4": (set_environment(SNB_PRECISION="bf16"), "CARD_CANNOT"),
    "an unreadable predict.py": (lambda made: made.write("predict.py", "class ("), "BAD_CONTRACT"),
    "no such class": (lambda made: made.configure(predict="predict.py:Nobody"), "BAD_CONTRACT"),
    "a setting that is none": (set_environment(SNB_PRECISON="nf4"), "BAD_SETTING"),
    "a loose pin": (lambda made: made.write("requirements.txt", PINNED + "pandas\n"), "CONFIG_UNPINNED"),
    "a quoted true": (set_build(gpu="true"), "CONFIG_UNREADABLE"),
    "broken yaml": (lambda made: made.write("cog.yaml", f"build: [\n{SECRET}"), "CONFIG_UNREADABLE"),
    "no cog": (lambda made: (made.home / "bin" / "cog").unlink(), "COG_ABSENT"),
    "no engine": (lambda made: made.program("docker", "sys.exit(1)"), "ENGINE_ABSENT"),
    "no login": (lambda made: shutil.rmtree(made.home / ".docker"), "NOT_LOGGED_IN"),
    "a persona that is ignored": (lambda made: made.write(".dockerignore", "**/kant.*\n"), "FILE_NOT_SENT"),
    "code ignored after a byte order mark": (
        lambda made: (made.root / ".dockerignore").write_bytes(b"\xef\xbb\xbfsnb/errors.py\n# \xe9\n"),
        "FILE_NOT_SENT",
    ),
    "a conflict left in a file": (
        lambda made: replace(made, "snb/engine/loop.py", "import", "<<<<<<< HEAD\nimport"),
        "SOURCE_BROKEN",
    ),
    "no such persona": (lambda made: (made.root / "snb/philosophers/kant.txt").unlink(), "PERSONA_ABSENT"),
    "an empty persona": (lambda made: made.write("snb/philosophers/kant.txt", " \n"), "PERSONA_EMPTY"),
    "another SDK": (set_build(sdk_version="0.22.0"), "SDK_MISMATCH"),
    "a package taken out": (lambda made: replace(made, "requirements.txt", "peft==", "# "), "PACKAGE_ABSENT"),
    "an older package": (
        lambda made: replace(made, "requirements.txt", "transformers==5.23.0", "transformers==4.57.6"),
        "PACKAGE_VERSION",
    ),
}


@pytest.mark.parametrize(("broken", "code"), BROKEN.values(), ids=list(BROKEN))
def test_each_broken_project_is_named_by_its_own_code(
    made: Sound, broken: Callable[[Sound], object], code: str
) -> None:
    broken(made)
    findings = made.findings()
    assert set(errors(findings)) == {code}
    for finding in findings:
        assert finding.level == "ok" or TYPED.search(finding.cure), finding
        assert LOGIN not in str(finding)
        assert SECRET not in str(finding)


def test_the_command_prints_a_line_for_each_finding_and_ends_with_the_worst(
    made: Sound, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scripts.code("doctor", MODEL, "--hardware", "t4") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "error: 0, not checked: 0, warning: 0, ok: 13"
    lose_private_adapter(made)
    assert scripts.code("doctor", MODEL, "--hardware", "t4") == 1
    assert "error        WEIGHTS_PRIVATE: adapter school/adapter" in capsys.readouterr().out


# Weights


def test_a_public_adapter_may_be_left_out_and_the_hub_is_asked_without_a_token(
    made: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    made.write(".dockerignore", "weights/school--adapter@*\n")
    adapter, base = made.project().weights
    assert "is public, and setup() downloads" in adapter.finding.text
    size = len(made.hub.trees[made.hub.commits[ADAPTER, "main"]]["adapter_model.safetensors"])
    assert (adapter.download, base.download) == (size, 0)
    assert {request.headers.get("authorization") for request in made.hub.requests} == {None}


def test_a_gated_repository_lists_its_files_for_everybody_and_is_private_all_the_same(made: Sound) -> None:
    shutil.rmtree(made.weights(ADAPTER))
    made.hub.fail("HEAD", "adapter_config.json", *[Fault(403, {"X-Error-Code": "GatedRepo"})] * 9)
    assert weights(made) == [("error", "WEIGHTS_PRIVATE"), ("ok", "WEIGHTS")]


def test_a_hub_that_does_not_answer_is_no_verdict(made: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    shutil.rmtree(made.weights(ADAPTER))
    made.hub.fail("GET", "/revision/main", *[Fault(503)] * 9)
    assert weights(made) == [("not checked", "WEIGHTS_UNASKED"), ("ok", "WEIGHTS")]
    made.hub.fail("GET", "/revision/main", *[Fault(503)] * 9)
    assert list(limits.setup_time(made.project())) == []


def test_a_repository_that_setup_would_refuse_is_refused_before_it_is_published(made: Sound) -> None:
    made.hub.push("school/pickle", {"adapter_config.json": b"{}", "adapter_model.bin": b"x"})
    set_environment(SNB_ADAPTER="school/pickle")(made)
    assert weights(made)[0] == ("error", "WEIGHTS_UNUSABLE")


def test_a_folder_outside_the_project_or_a_link_is_not_in_the_image(made: Sound) -> None:
    outside = made.weights(BASE).rename(made.home / "base")
    made.configure({"SNB_BASE_MODEL": str(outside), "SNB_ADAPTER": "none"})
    assert weights(made) == [("error", "WEIGHTS_ABSENT")]
    (made.root / "weights" / "mine").symlink_to(outside)
    made.configure({"SNB_BASE_MODEL": "weights/mine", "SNB_ADAPTER": "none"})
    assert weights(made) == [("error", "WEIGHTS_ABSENT")]


def test_prepared_weights_are_all_that_a_boot_reads_and_decide_the_precision(made: Sound) -> None:
    folder = made.prepare("bf16")
    assert {Path(name).parent.name for name in made.project().sent_weights} == {folder.name}
    assert errors(limits.card(made.project("t4"))) == ["CARD_CANNOT"]
    made.write(f"weights/{made.weights(BASE).name}/more.safetensors", "\0", 29 * 10**9)
    project = made.project()
    assert not [
        name for name in project.context.files if name.startswith(f"weights/{made.weights(BASE).name}")
    ]
    assert "weights/pins.json" in project.context.files


def test_prepared_weights_for_something_else_or_damaged_are_named(made: Sound) -> None:
    folder = made.prepare("nf4")
    made.configure({"SNB_BASE_MODEL": "school/other", "SNB_ADAPTER": ADAPTER})
    assert weights(made) == [("error", "WEIGHTS_MISMATCH")]
    made.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER})
    (folder / CARD).write_text("{}")
    assert weights(made) == [("error", "WEIGHTS_DAMAGED")]


# The context, the time and the card


def test_what_dockerignore_leaves_out_is_not_sent(made: Sound) -> None:
    made.write("client/.env", f"A={SECRET}\n")
    assert errors(made.findings()) == []
    (made.root / ".dockerignore").unlink()
    assert errors(made.findings()) == ["SECRET_FILE"]


def test_bytes_that_would_take_longer_than_a_boot_may_are_an_error(made: Sound) -> None:
    made.write("a.bin", "\0", 200 * 10**9)
    assert errors(limits.setup_time(made.project())) == ["SETUP_TOO_SLOW"]


@pytest.mark.parametrize(
    ("shards", "codes"),
    [
        ([2_200_000_000] + [1_100_000_000] * 7, ["BUILD", "LAYERS"]),
        ([10_000_000_001], ["BUILD", "LAYER_TOO_LARGE"]),
        ([4_000_000_000] * 80, ["DISK_FULL", "LAYERS"]),
    ],
)
def test_an_image_that_disk_or_registry_would_not_take_is_refused_before_it_is_built(
    made: Sound, shards: list[int], codes: list[str]
) -> None:
    findings = [*layers.build(shards), *layers.registry(shards)]
    assert [finding.code for finding in findings] == codes


def test_minutes_of_upload_and_disk_are_computed_from_the_layers(made: Sound) -> None:
    [build] = layers.build([9_000_000_000])
    assert "computed: 45.0 GB of disk" in build.text
    assert "a first push of 18.0 GB takes 24 min at 100 Mbit/s and 2 min at 1 Gbit/s" in build.text
    [registry] = layers.registry([1_000_000_000] * 9)
    assert "so it takes 160 Mbit/s, or 64 with" in registry.text


@pytest.mark.parametrize(
    ("hardware", "precision", "code"),
    [
        ("t4", "int8", "CARD_TOO_SMALL"),
        ("l40s", "bf16", "CARD_FEWER_SLOTS"),
        ("l40s", "fp8", "CARD_FEWER_SLOTS"),
        ("h100", "fp8", "CARD"),
        ("a100", "fp8", "CARD_CANNOT"),
        (None, "bf16", "CARD"),
    ],
)
def test_the_14b_on_each_card(made: Sound, hardware: str | None, precision: str, code: str) -> None:
    config = json.loads((made.weights(BASE) / "config.json").read_text()) | SIZES
    config.pop("layer_types", None)  # one for each layer
    files = {**made.hub.trees[made.hub.commits[BASE, "main"]], "config.json": json.dumps(config).encode()}
    made.hub.push("school/14b", files)
    made.configure({"SNB_BASE_MODEL": "school/14b", "SNB_ADAPTER": "none", "SNB_PRECISION": precision})
    [finding] = limits.card(made.project(hardware))
    assert finding.code == code


# Secrets


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("r8_" + "a1B2c3D4" * 4, True),
        ('password = "correct-horse-battery"', True),
        ("the key of this shell: lettre-de-la-classe", True),
        (f"runpodctl config --apiKey rpa_{'A1B2C3D4' * 5}", True),
        (f"vastai set api-key {'0a1b2c3d' * 8}", True),
        (f"export NETLIFY_AUTH_TOKEN=nfp_{'a1B2c3D4' * 5}", True),
        (f"netlify deploy --auth {'a1B2c3D4' * 5}", True),
        (f"export AWS_SECRET_ACCESS_KEY={'a1B2/c3+' * 5}", True),
        ("SNB_API_KEY=une-autre-classe scripts/serve", True),
        ("export REGISTRE_JETON=une-autre-classe", True),
        ("the registry's token of this shell: la-cle-du-registre", True),
        ("curl -H 'Authorization: Bearer une-autre-classe'", True),
        ('curl -H "Authorization: Bearer ${SNB_API_KEY:?}"', False),
        ("export SNB_API_KEY=$(openssl rand -hex 24)", False),
        ("export SNB_API_KEY=…", False),
        ('token = os.environ["HF_TOKEN"]', False),
        ("revision: cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8", False),
    ],
)
def test_a_secret_is_found_in_its_line_and_what_only_speaks_of_one_is_none(
    made: Sound, line: str, secret: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNB_API_KEY", "lettre-de-la-classe")
    monkeypatch.setenv("REGISTRE_JETON", "la-cle-du-registre")
    made.write("notes.py", f"x = 1\n{line}\n")
    texts = [finding.text for finding in secret_scan.check(made.project()) if finding.level == "error"]
    assert [text.partition(":")[0] for text in texts] == ["notes.py, line 2"] * secret


def test_this_repository_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """In no file in git, which has more than Docker would send, but for tests, which hold lookalikes."""
    names = subprocess.check_output(["git", "ls-files", ":!tests", ":!client/test"], cwd=ROOT, text=True)
    tracked = {name: (ROOT / name).stat().st_size for name in names.splitlines() if (ROOT / name).is_file()}
    monkeypatch.setattr(BuildContext, "of", lambda root: BuildContext(root, tracked, frozenset()))
    project = Project(ROOT, bare=True)  # else the hub is asked for absent weights
    found = [finding.text for finding in secret_scan.check(project) if finding.level != "ok"]
    assert not [text for text in found if not re.match(r"deploy/.*README.md, .*: Secret Keyword", text)]


# What is published


def test_a_model_without_a_version_may_be_pushed_to_and_one_that_is_absent_may_not(made: Sound) -> None:
    made.api.first = None
    assert errors(made.findings()) == []
    assert errors(list(doctor.findings(Project(made.root, "owner/other")))) == ["MODEL_ABSENT"]
