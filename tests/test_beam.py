"""Prep by Apache Beam makes the folder that prep without it makes, on whatever runs it; and complains as clearly."""

import subprocess
import sys

import pytest
from test_prep_command import PATTERN, ROOT, linux, photographs, run, start

from data_prep.__main__ import main
from data_prep.sources import PrepError
from facedisent_jax.records import read_info, read_split

SEVERAL = ["--beam-option", "direct_running_mode=multi_processing", "--beam-option", "direct_num_workers=2"]
"""DirectRunner with two worker processes."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Photographs of ten people, one of them with files that cannot be used."""
    made = photographs(tmp_path_factory.mktemp("beam") / "raw", people=10)
    (made / "s00_smile.png").write_bytes(b"")
    (made / "s01_smile.png").write_bytes((made / "s01_smile.png").read_bytes()[:3000])
    return made


@pytest.fixture(scope="module")
def local(raw):
    made = raw.parent / "local"
    main(["folder", str(raw), str(made), *options(raw)])
    return made


def options(raw) -> list[str]:
    return ["--pattern", PATTERN, "--boxes", str(raw / "boxes.csv")]


def same(local, made) -> None:
    here, there = read_info(made), read_info(local)
    assert here["content"] == there["content"] and here["splits"] == there["splits"]
    assert here["subjects"] == there["subjects"] and here["rejected"] == there["rejected"]
    assert (made / "rejected.csv").read_text() == (local / "rejected.csv").read_text()
    assert len((made / "rejected.csv").read_text().splitlines()) == 3
    assert sum(here["splits"].values()) == 18
    for split in here["splits"]:
        assert len(read_split(made, split)) == here["splits"][split]  # which reads and checks every byte
    main(["verify", str(made)])


def test_the_same_folder_as_without_it(raw, local, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam"])
    same(local, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_several_processes_make_the_same_folder(raw, local, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    status, _, said = run("folder", raw, tmp_path / "out", *options(raw), "--beam", *SEVERAL)
    assert status == 0, said
    same(local, tmp_path / "out")


@linux
@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_looks_finished(raw, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    out = tmp_path / "out"
    process = start("folder", raw, out, *options(raw), "--beam", *SEVERAL)
    while not list(tmp_path.glob("out.incomplete-*/jobs/0")):
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert not out.exists() and list(tmp_path.glob("out.incomplete-*"))
    main(["folder", str(raw), str(out), *options(raw), "--beam"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("runner=Nope", "Beam has no such runner; it has .*FlinkRunner"),
        ("direct_num_worker=2", "Beam has no such option; did you mean direct_num_workers"),
        ("direct_num_workers=two", "--beam-option: argument --direct_num_workers: invalid int value"),
        ("two words", "NAME=VALUE was expected"),
    ],
)
def test_an_option_that_cannot_be_is_a_sentence(raw, tmp_path, given, match):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    with pytest.raises((PrepError, SystemExit), match=match):
        main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam", "--beam-option", given])
    assert not list(tmp_path.iterdir())


def test_options_without_beam_and_beam_without_its_library(raw, tmp_path):
    given = ["folder", str(raw), str(tmp_path / "out"), *options(raw)]
    with pytest.raises((PrepError, SystemExit), match="--beam-option goes with --beam"):
        main([*given, "--beam-option", "runner=FlinkRunner"])
    code = "import sys; sys.modules['apache_beam'] = None; from data_prep.__main__ import main; "
    code += f"main({[*given, '--beam']})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().endswith("pip install 'facedisent-jax[beam]'.")
    assert "Traceback" not in done.stderr
