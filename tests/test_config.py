"""A config that was written is read again, and one of another version is refused."""

import json

import pytest

from facedisent_jax.config import VERSION, from_dict, to_dict
from facedisent_jax.errors import UserError
from facedisent_jax.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_written_is_a_config_read(name):
    config = PRESETS[name].config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config and config.preset == name


def test_a_config_of_another_version_names_what_it_does_not_know():
    with pytest.raises(UserError, match="model.depth"):
        from_dict({"version": VERSION, "model": {"depth": 3}})
