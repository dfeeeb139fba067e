"""scripts/push and scripts/image, as far as they can be run without Docker and an account.

Cog, Docker and the smoke test are stand-ins that record how they were called. Replicate's API is the test
server, whose model has a new version once the stand-in for Cog has "pushed".
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snb.errors import BadSetting, WeightsMissing
from tests import scripts
from tests.replicate_server import MODEL
from tests.sound_project import ADAPTER, BASE, NEW, OLD, TOKEN, Sound, sound
from tools.publishing import build_context, push
from tools.publishing.image import NotBuilt
from tools.publishing.published import ApiSilent
from tools.publishing.push import NotPublished

IMAGE = "host/owner/spinoza:1"
pytestmark = pytest.mark.slow  # every test reads a whole project


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sound]:
    monkeypatch.setattr(push, "PAUSE", 0.05)
    with sound(tmp_path, monkeypatch) as made:
        yield made


def publish(made: Sound) -> str:
    return push.publish(made.project())


def pushes(made: Sound) -> list[list[str]]:
    return [call["words"] for call in made.calls("cog") if call["words"][0] == "push"]


def test_cog_pushes_what_was_checked_and_nothing_else(made: Sound) -> None:
    made.write(".venv/bin/ruff", "\0", 20 << 20)
    made.write(".cog/openapi_schema.json", "{}")
    (made.root / "link").symlink_to("predict.py")
    assert publish(made) == NEW
    [call] = made.calls("cog")
    assert call["words"] == ["push", f"r8.im/{MODEL}", "--separate-weights"]
    assert call["sent"] == sorted([*made.project().context.files, "link"])
    assert not any(name.startswith((".venv", ".cog")) for name in call["sent"])
    assert [call["words"] for call in made.calls("smoke-test")] == [[f"{MODEL}:{NEW}"]]
    assert list((made.root / build_context.STAGE).iterdir()) == []


def test_without_weights_in_the_image_there_is_nothing_to_separate(made: Sound) -> None:
    for repository in (BASE, ADAPTER):
        shutil.rmtree(made.weights(repository))
    assert publish(made) == NEW
    assert pushes(made) == [["push", f"r8.im/{MODEL}"]]


def test_a_version_that_fails_the_smoke_test_is_named_with_the_way_back(made: Sound) -> None:
    made.program("../project/scripts/smoke-test", "sys.exit(1)")
    with pytest.raises(NotPublished, match=f"{MODEL}:{NEW} is published and fails") as failure:
        publish(made)
    assert f"call {MODEL}:{OLD}" in failure.value.cure


@pytest.mark.parametrize(
    ("body", "said"), [("sys.exit(3)", "cog push ended with 3; the"), ("", "after 1 s the")]
)
def test_a_push_that_fails_or_brings_no_version_leaves_the_one_that_was_there(
    made: Sound, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    made.api.second = OLD
    made.program("cog", body)
    monkeypatch.setattr(push, "WAIT", 1.0)
    with pytest.raises(NotPublished, match=f"{said} latest version is still {OLD}"):
        publish(made)
    assert made.calls("smoke-test") == []
    assert list((made.root / build_context.STAGE).iterdir()) == []


@pytest.mark.parametrize("token", ["", "r8_another", "r8_é", "r8_a\n"])
def test_without_a_token_that_opens_it_nothing_is_pushed_and_no_token_is_shown(
    made: Sound, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    with pytest.raises(ApiSilent) as failure:
        publish(made)
    assert pushes(made) == []
    assert not token or token not in str(failure.value)


def test_what_an_interrupted_push_left_goes_and_cogs_cache_stays(made: Sound) -> None:
    stage = made.root / build_context.STAGE
    made.write(f"{build_context.STAGE}/weights/old/model.safetensors", "x")
    made.write(f"{build_context.STAGE}/.cog/cache/weights_manifest.json", "{}")
    with made.project().context.staged():
        assert (stage / "predict.py").samefile(made.root / "predict.py")
        assert not (stage / "weights" / "old").exists()
    assert [path.name for path in stage.iterdir()] == [".cog"]
    assert (stage / ".cog" / "cache" / "weights_manifest.json").exists()
    assert (made.root / "predict.py").exists()


def test_the_command_prints_the_version_alone_and_warnings_do_not_stop_it(
    made: Sound, capfd: pytest.CaptureFixture[str]
) -> None:
    made.write("corpus.txt", "Nous ne désirons pas une chose parce qu’elle est bonne.\n" * 20_000)
    assert scripts.code("push", MODEL, "--hardware", "l40s") == 0
    written = capfd.readouterr()
    assert written.out == f"{NEW}\n"
    assert "warning      SECRETS_SKIMMED" in written.err
    assert TOKEN not in written.err


@pytest.mark.parametrize("fault", ["error", "not checked"])
def test_the_command_pushes_nothing_after_an_error_or_what_nobody_could_check(
    made: Sound, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    if fault == "error":
        made.write("essai.ipynb", "hf_" + "a1B2" * 8)
    else:
        monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_another")
    assert scripts.code("push", MODEL, "--hardware", "l40s") == 1
    written = capfd.readouterr()
    assert written.out == ""
    code = {"error": "SECRET_IN_FILE", "not checked": "API_SILENT"}[fault]
    assert f"\n{fault:<11}  {code}" in written.err
    assert written.err.endswith("Nothing was pushed.\n")
    assert pushes(made) == []


# scripts/image


def built(made: Sound, *options: str) -> tuple[int, list[list[str]]]:
    code = scripts.code("image", IMAGE, *options)
    return code, [call["words"][1:] for call in made.calls("docker") if call["words"][0] == "build"]


def test_an_image_is_built_of_the_code_then_of_prepared_weights_then_its_door(
    made: Sound, capfd: pytest.CaptureFixture[str]
) -> None:
    weights, deploy = made.prepare("nf4"), made.root / "deploy"
    code, commands = built(made)
    out, said = capfd.readouterr()
    assert (code, out.split()) == (0, [IMAGE, f"{IMAGE}-porte"])
    assert "BUILD: computed" in said
    [cog] = [call for call in made.calls("cog") if call["words"][0] == "build"]
    assert cog["words"] == ["build", "--tag", f"{IMAGE}-code"]
    assert [name for name in cog["sent"] if name.startswith("weights/")] == ["weights/pins.json"]
    door = deploy / "huggingface"
    assert commands == [
        [*f"--file {deploy}/Dockerfile --tag {IMAGE} --build-arg CODE={IMAGE}-code".split(), str(weights)],
        [*f"--file {door}/Dockerfile --tag {IMAGE}-porte --build-arg IMAGE={IMAGE}".split(), str(door)],
    ]


def test_an_image_without_weights_is_asked_for_by_name(made: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_WEIGHTS_DIR", "/elsewhere")
    with pytest.raises(WeightsMissing, match=f"--output {made.root}/weights/prepared.*SNB_WEIGHTS_DIR"):
        built(made)
    code, [whole, _] = built(made, "--without-weights")
    assert code == 0
    assert whole[-3:-1] == ["--target", "code"]


def test_weights_in_an_image_whose_boots_take_others_are_refused(made: Sound) -> None:
    made.prepare("nf4").rename(made.root / "weights" / "others")
    made.configure({"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": ADAPTER, "SNB_PREPARED": "weights/others"})
    with pytest.raises(BadSetting, match=r"SNB_PREPARED=weights/others.*--without-weights"):
        built(made)


def test_nothing_is_built_of_a_project_with_a_fault(made: Sound) -> None:
    made.prepare("nf4")
    made.write(".env", "A=1\n")
    assert built(made) == (1, [])
    (made.root / ".env").unlink()
    made.program("docker", "sys.exit(sys.argv[1] == 'build' and 4 or print('28.0.0'))")
    with pytest.raises(NotBuilt, match="docker build ended with 4"):
        built(made)
