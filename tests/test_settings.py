"""Settings: every name and value is checked, and all faults are reported at once."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from snb.engine.paths import PATHS
from snb.errors import BadSetting
from snb.settings import OF_OTHERS, ROOT, Settings


def test_each_setting_is_read_and_an_empty_one_is_the_default() -> None:
    settings = Settings.from_environment(
        {"SNB_PRECISION": "nf4", "SNB_WEIGHTS_DIR": "/data", "SNB_SLOTS": "3", "HF_TOKEN": "hf_x"}
    )
    assert (settings.precision, settings.weights_dir, settings.slots) == ("nf4", Path("/data"), 3)
    assert settings.hf_token == "hf_x"
    settings = Settings.from_environment({"SNB_PRECISION": ""})
    assert settings == Settings.from_environment({}) == Settings()
    assert settings.base_model == "Qwen/Qwen2.5-14B-Instruct"
    assert settings.adapter == "FJDaz/qwen-spinoza-niveau-b"
    for path in ("auto", *PATHS):
        assert Settings.from_environment({"SNB_PATH": path}).path == path


def test_an_unknown_name_and_bad_values_are_all_in_one_error() -> None:
    environment = {"SNB_PRECISON": "nf4", "SNB_PRECISION": "int4", "SNB_SLOTS": "-1", "SNB_CONTEXT": "²"}
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment(environment)
    said = str(caught.value)
    for part in ("SNB_PRECISON is not a setting", "int4", "nf4", "SNB_SLOTS", "SNB_CONTEXT", "SNB_ADAPTER"):
        assert part in said


@pytest.mark.parametrize("service", ["SNB", "SNB_API"])
def test_what_kubernetes_sets_for_a_service_is_no_setting(service: str) -> None:
    url = "tcp://10.96.0.7:5000"
    links = {"SERVICE_HOST": "10.96.0.7", "SERVICE_PORT": "5000", "SERVICE_PORT_HTTP": "5000", "PORT": url}
    links |= {"PORT_5000_TCP": url, "PORT_5000_TCP_PROTO": "tcp", "PORT_5000_TCP_ADDR": "10.96.0.7"}
    assert Settings.from_environment({f"{service}_{end}": link for end, link in links.items()}) == Settings()


@pytest.mark.parametrize("name", ["SNB_PORT", "SNB_SERVICE", "SNB_HOSTS", "SNB_WEIGHTS", "SNB_PORT_5000"])
def test_what_only_looks_like_a_neighbour_s_stops_the_boot(name: str) -> None:
    with pytest.raises(BadSetting, match=f"{name} is not a setting"):
        Settings.from_environment({name: "5000"})


def test_what_the_client_and_the_files_of_deploy_read_is_no_misspelling() -> None:
    parts = [ROOT / "client" / "src", ROOT / "deploy", ROOT / "tools" / "serving"]
    files = [path for part in parts for path in part.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    text = "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)
    known = {setting.metadata["env"] for setting in fields(Settings)}
    assert {*re.findall(r"\bSNB_[A-Z_]+[A-Z]\b", text)} - known == {*OF_OTHERS}
    assert Settings.from_environment(dict.fromkeys(OF_OTHERS, "x")) == Settings()


def test_the_token_is_in_no_text_of_the_settings() -> None:
    settings = Settings.from_environment({"HF_TOKEN": "hf_secret"})
    assert "hf_secret" not in repr(settings)
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment({"HF_TOKEN": "   ", "SNB_SLOTS": "x"})
    assert "HF_TOKEN" in str(caught.value)
