"""Settings: every name and value is checked, and every fault said at once."""

from pathlib import Path

import pytest

from snb.errors import BadSetting
from snb.paths import PATHS
from snb.settings import Settings


def test_nothing_set_is_the_real_model() -> None:
    settings = Settings.from_environment({})
    assert settings.base_model == "Qwen/Qwen2.5-14B-Instruct"
    assert settings.adapter == "FJDaz/qwen-spinoza-niveau-b"
    assert settings.precision == "auto"


def test_each_setting_is_read() -> None:
    settings = Settings.from_environment(
        {"SNB_PRECISION": "nf4", "SNB_WEIGHTS_DIR": "/data", "SNB_SLOTS": "3", "HF_TOKEN": "hf_x"}
    )
    assert (settings.precision, settings.weights_dir, settings.slots) == ("nf4", Path("/data"), 3)
    assert settings.hf_token == "hf_x"


def test_an_unknown_name_and_bad_values_are_all_in_one_error() -> None:
    environment = {"SNB_PRECISON": "nf4", "SNB_PRECISION": "int4", "SNB_SLOTS": "-1", "SNB_CONTEXT": "²"}
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment(environment)
    said = str(caught.value)
    for part in ("SNB_PRECISON is not a setting", "int4", "nf4", "SNB_SLOTS", "SNB_CONTEXT", "SNB_ADAPTER"):
        assert part in said


def test_an_empty_value_is_the_default() -> None:
    assert Settings.from_environment({"SNB_PRECISION": ""}) == Settings()


def test_the_token_is_in_no_text_of_the_settings() -> None:
    settings = Settings.from_environment({"HF_TOKEN": "hf_secret"})
    assert "hf_secret" not in repr(settings)
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment({"HF_TOKEN": "   ", "SNB_SLOTS": "x"})
    assert "HF_TOKEN" in str(caught.value)


def test_every_path_can_be_named() -> None:
    for path in ("auto", *PATHS):
        assert Settings.from_environment({"SNB_PATH": path}).path == path
