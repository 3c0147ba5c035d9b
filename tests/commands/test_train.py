"""The command line of train.py: presets, options, and mistakes that end in one sentence."""

import subprocess
import sys

import pytest
from tiny_run import ROOT

from facedisent_jax.commands import train
from facedisent_jax.presets import PRESETS


def test_help_names_all_presets_without_jax_or_tensorflow():
    result = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and all(name in result.stdout for name in PRESETS)
    script = """if True:
        import sys
        from facedisent_jax.commands import train
        train.parse([])
        print([name for name in ("jax", "flax", "tensorflow", "matplotlib") if name in sys.modules])
    """
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_options_change_the_preset():
    config = train.parse(["binary", "--data", "a", "b", "--run", "r", "--steps", "7", "--optim.lr", "0.5"])
    assert config.data == ("a", "b") and config.steps == 7 and config.optim.lr == 0.5
    assert config.loss == PRESETS["binary"].config.loss
    assert train.parse([]) == PRESETS["smile"].config


@pytest.mark.parametrize(
    ("arguments", "hint"), [(["binry"], "got 'binry'. Did you mean binary?"), (["--optm.lr", "1"], "--optim.lr")]
)
def test_a_typo_is_answered_with_the_right_word(arguments, hint, capsys):
    with pytest.raises(SystemExit) as system_exit:
        train.run(arguments)
    assert hint in str(system_exit.value) + capsys.readouterr().err and system_exit.value.code != 0
