import pytest

from semacdr.errors import ConfigError
from semacdr.model.config import ItemView, Thread, load_preset, preset_names


def test_presets_are_the_known_ones_and_all_load():
    assert preset_names() == [
        "abxi-like", "c2dsr-like", "esasrec", "llm4cdsr-like", "sasrec-mixed", "sasrec-target", "sasrec-text",
        "semacdr", "semacdr-paper-like", "tri-cdr-like",
    ]  # fmt: skip
    for name in preset_names():
        assert load_preset(name).preset == name


def test_preset_semacdr_has_every_part_on():
    config = load_preset("semacdr")
    assert config.views == tuple(ItemView)
    assert config.threads == tuple(Thread)
    assert config.aligns_views


def test_load_preset_override_wins_over_preset():
    assert load_preset("sasrec-target", {"dim": 32}).dim == 32


def test_load_preset_unknown_name_suggests_near_ones():
    with pytest.raises(ConfigError, match="did you mean 'semacdr'"):
        load_preset("semacd")


def test_load_preset_unknown_override_suggests_near_ones():
    with pytest.raises(ConfigError, match=r"did you mean .*'dropout'"):
        load_preset("semacdr", {"droput": 0.1})


@pytest.mark.parametrize(
    "overrides",
    [{"threads": ["target", "target"]}, {"dim": 30, "num_heads": 4}, {"views": []}, {"dropout": 1.5}],
)
def test_load_preset_impossible_values_are_refused(overrides: dict[str, object]):
    with pytest.raises(ConfigError):
        load_preset("semacdr", overrides)
