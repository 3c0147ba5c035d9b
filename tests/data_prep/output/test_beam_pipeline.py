"""Prep by Apache Beam makes the folder that prep without it makes, on whatever runs it; and complains as clearly."""

import subprocess
import sys

import pytest
from extras import needs
from PIL import Image
from test_mug import take, video
from test_prep_command import PATTERN, ROOT, linux, photographs, run, start

from data_prep.__main__ import main
from data_prep.synthetic.faces import draw_levels, random_identity
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.errors import UserError

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


@needs("beam", "apache_beam")
def test_the_same_folder_as_without_it(raw, local, tmp_path):
    main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam"])
    same(local, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def mug_copy(raw) -> None:
    """Takes as frames and as videos, whose intensities are measured, and one that cannot be used."""
    for who in range(4):
        take(raw / f"00{who}/happiness/take000", who, first=5)
        video(raw / f"00{who}/happiness/take001.avi", who)
    take(raw / "004/happiness/take000", 4, levels=[0.0])


def multipie_copy(raw) -> None:
    """Neutral and smiling pictures under three lights, which share a crop, and one that is no picture."""
    raw.mkdir()
    for who in range(4):
        for recording, face in enumerate(draw_levels(random_identity(0, who), [0, 1]), 1):
            for light in (6, 7, 8):
                picture = Image.fromarray(face).resize((200, 200))
                picture.save(raw / f"00{who + 1}_01_0{recording}_051_{light:02}.png")
    (raw / "005_01_01_051_07.png").write_bytes(b"")


@pytest.mark.parametrize(("source", "copy"), [("mug", mug_copy), ("multipie", multipie_copy)])
@needs("beam", "apache_beam")
def test_mug_and_multipie_become_the_same_folder_too(source, copy, tmp_path):
    copy(tmp_path / "raw")
    for name, more in (("local", ["--workers", "1"]), ("beam", ["--beam"])):
        main([source, str(tmp_path / "raw"), str(tmp_path / name), *more])
    here, there = read_info(tmp_path / "beam"), read_info(tmp_path / "local")
    for what in ("content", "splits", "subjects", "rejected", "found_by"):
        assert here[what] == there[what], what
    assert all(here["splits"].values()) and here["rejected"], "something of each to compare"
    assert (tmp_path / "beam/rejected.csv").read_text() == (tmp_path / "local/rejected.csv").read_text()


@pytest.mark.slow
@needs("beam", "apache_beam")
def test_several_processes_make_the_same_folder(raw, local, tmp_path):
    status, _, said = run("folder", raw, tmp_path / "out", *options(raw), "--beam", *SEVERAL)
    assert status == 0, said
    same(local, tmp_path / "out")


@linux
@pytest.mark.slow
@needs("beam", "apache_beam")
def test_a_killed_run_leaves_nothing_that_looks_finished(raw, tmp_path):
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
@needs("beam", "apache_beam")
def test_an_option_that_cannot_be_is_a_sentence(raw, tmp_path, given, match):
    with pytest.raises((UserError, SystemExit), match=match):
        main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam", "--beam-option", given])
    assert not list(tmp_path.iterdir())


@needs("beam", "apache_beam")
def test_a_job_server_that_does_not_answer_is_a_sentence(raw, tmp_path):
    by = [f"--beam-option={o}" for o in ("runner=PortableRunner", "job_endpoint=localhost:9", "job_server_timeout=1")]
    with pytest.raises(SystemExit, match="no job server answered"):
        main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam", *by])


def test_options_without_beam_and_beam_without_its_library(raw, tmp_path):
    given = ["folder", str(raw), str(tmp_path / "out"), *options(raw)]
    with pytest.raises((UserError, SystemExit), match="--beam-option goes with --beam"):
        main([*given, "--beam-option", "runner=FlinkRunner"])
    code = "import sys; sys.modules['apache_beam'] = None; from data_prep.__main__ import main; "
    code += f"main({[*given, '--beam']})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().endswith("pip install 'facedisent-jax[beam]'.")
    assert "Traceback" not in done.stderr
