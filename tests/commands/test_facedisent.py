"""The console script gives each command its own options."""

import sys

import pytest

from facedisent_jax.commands import evaluate, facedisent


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["facedisent", *arguments])
    facedisent.main()


def test_every_command_is_listed(monkeypatch, capsys):
    run(monkeypatch)
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == {"prep", "train", *evaluate.COMMANDS}


@pytest.mark.parametrize(
    "command, message",
    [
        (["trane"], "got 'trane'. Did you mean train?"),
        (["swap", "runs/none", "a.jpg", "b.jpg"], "facedisent: An input must be an existing file, got a.jpg."),
        (["prep", "inspekt"], "Did you mean inspect?"),
    ],
)
def test_mistakes_are_sentences(monkeypatch, tmp_path, command, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_error:
        run(monkeypatch, *command)
    assert message in str(exit_error.value)


@pytest.mark.slow
def test_a_data_folder_is_prepared(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "prep", "synthetic", "drawn", "--subjects", "3", "--levels", "2")
    assert (tmp_path / "drawn" / "prep.json").exists() and "drawn is ready" in capsys.readouterr().out
