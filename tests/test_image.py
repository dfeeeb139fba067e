"""scripts/image: its Dockerfiles executed step by step, and booted as user 1000 from prepared weights."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.hosts import DEPLOY, GIVEN, KEY, composed
from tests.image_root import NAMESPACES, Container, Image
from tests.test_prepared import made_of
from tests.waiting import until
from tools.preparing import preparation
from tools.publishing import layers

pytestmark = pytest.mark.server  # two images are built and started

DOOR = DEPLOY / "huggingface" / "Dockerfile"
USER = 1000
ORIGIN = {"SNB_BASE_MODEL": "/nowhere/base", "SNB_ADAPTER": "/nowhere/adapter"}
"""Names of what the weights were prepared from; neither is in the image, which has no network."""
JSON = ("--header", "Content-Type: application/json")
AUTHORIZED = ("--header", f"Authorization: Bearer {KEY}")
QUESTION = json.dumps({"input": {"user_message": "Bonjour", "max_tokens": 3}})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights prepared in nf4."""
    settings = made_of(tmp_path_factory.mktemp("made"))
    preparation.prepare(preparation.Recipe.of(settings, "nf4"), settings.weights_dir / "prepared")
    return settings.weights_dir / "prepared"


@pytest.fixture(scope="module")
def image(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """IMAGE of scripts/image, from shards that only root may read, as safetensors writes them."""
    if os.geteuid() or subprocess.run([*NAMESPACES, "ip", "link"], capture_output=True).returncode:
        pytest.skip("only root of a machine with unshare, chroot and ip can make an image's root")
    folder = tmp_path_factory.mktemp("image")
    private = shutil.copytree(weights, folder / "weights")
    for shard in private.iterdir():
        shard.chmod(0o600)
    code = Image.of_cog(folder / "code")
    return code.built(folder / "whole", DEPLOY / "Dockerfile", private)


def answer(container: Container, url: str) -> None:
    """Waits until a container is ready, and asks one question with the key and one without."""

    def ready() -> bool:
        assert container.process.poll() is None, "it has ended"
        return '"READY"' in container.asked(f"{url}/health-check")

    until(ready)
    question = (f"{url}/predictions", *JSON, "--data", QUESTION)
    assert json.loads(container.asked(*question, *AUTHORIZED))["status"] == "succeeded"
    assert "error" in json.loads(container.asked(*question))


def test_every_prepared_file_is_in_one_layer(image: Image, weights: Path) -> None:
    held = image.folder / "upper" / "src" / "weights" / "prepared"
    assert {path.name for path in held.iterdir()} == {path.name for path in weights.iterdir()}
    shards = [path.stat().st_size for path in weights.glob("*.safetensors")]
    assert sorted(layers.of_weights(weights)) == sorted(shards)  # each in a layer of its own


def test_the_door_boots_as_user_1000_from_a_mounted_repository(image: Image, tmp_path: Path) -> None:
    door = image.built(tmp_path / "door", DOOR, DOOR.parent)
    door.run('test -z "$(find /src -writable ! -type l)"')  # it writes to its home and /tmp only
    mounted = Image(tmp_path / "space", door)  # as a Space: no weights in the image, root's on a volume
    mounted.user = "0:0"
    mounted.run("mv /src/weights/prepared /prepared && touch /prepared/.gitattributes /prepared/README.md")
    mounted.user = door.user
    with (tmp_path / "log").open("w") as log:
        environment = {**ORIGIN, "SNB_API_KEY": KEY, "SNB_PREPARED": "/prepared"}
        with mounted.started(log, environment) as container:
            answer(container, "http://127.0.0.1:7860")
            assert Path("/proc", str(container.pid)).stat().st_uid == USER
            os.kill(container.pid, signal.SIGTERM)
            assert container.process.wait(timeout=60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert "prepared nf4" in (tmp_path / "log").read_text()


def test_a_file_that_user_1000_may_not_read_stops_the_build_by_name(image: Image, tmp_path: Path) -> None:
    closed = Image(tmp_path / "closed", image)
    closed.run("install --mode 600 /dev/null /src/snb/closed.py")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        closed.built(tmp_path / "door", DOOR, DOOR.parent)
    assert "may not read this; build IMAGE with scripts/image" in failure.value.stderr
    assert failure.value.stderr.endswith(": /src/snb/closed.py\n")


def test_compose_finds_the_image_s_own_weights_without_a_setting(image: Image, tmp_path: Path) -> None:
    service = composed(tmp_path, {**GIVEN, **ORIGIN})["services"]["model"]
    own = Image(tmp_path / "image", image)
    own.user, own.command = service["user"], service["command"]
    given = {name: value for name, value in service["environment"].items() if value is not None}
    assert service["read_only"]
    with (tmp_path / "log").open("w") as log, own.started(log, given) as model:
        answer(model, "http://127.0.0.1:5000")
        subprocess.run([*model.inside, *service["healthcheck"]["test"][1:]], check=True)
    assert "weights: prepared nf4" in (tmp_path / "log").read_text()
