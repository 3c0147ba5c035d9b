"""With Apache Beam, preparation makes the same folder as without it, and its errors are as clear."""

import shutil
import subprocess
import sys

import pytest
from extras import needs
from PIL import Image
from prep_helpers import PATTERN, linux_only, run_prep, start_prep, write_photographs, write_take, write_video
from tiny_run import ROOT

from data_prep.__main__ import main
from data_prep.synthetic.faces import draw_levels, random_identity
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.errors import UserError

TWO_PROCESSES = ["--beam-option", "direct_running_mode=multi_processing", "--beam-option", "direct_num_workers=2"]
"""DirectRunner with two worker processes."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Photographs of ten people, one of them with files that cannot be used."""
    folder = write_photographs(tmp_path_factory.mktemp("beam") / "raw", people=10)
    (folder / "s00_smile.png").write_bytes(b"")
    (folder / "s01_smile.png").write_bytes((folder / "s01_smile.png").read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def local_folder(raw):
    """The data folder without Beam."""
    folder = raw.parent / "local"
    main(["folder", str(raw), str(folder), *options(raw)])
    return folder


def options(raw) -> list[str]:
    return ["--pattern", PATTERN, "--boxes", str(raw / "boxes.csv")]


def check_same(local_folder, out) -> None:
    info, local_info = read_info(out), read_info(local_folder)
    assert info["content"] == local_info["content"] and info["splits"] == local_info["splits"]
    assert info["subjects"] == local_info["subjects"] and info["rejected"] == local_info["rejected"]
    assert (out / "rejected.csv").read_text() == (local_folder / "rejected.csv").read_text()
    assert len((out / "rejected.csv").read_text().splitlines()) == 3
    assert sum(info["splits"].values()) == 18
    for split in info["splits"]:
        assert len(read_split(out, split)) == info["splits"][split]  # which reads and checks every byte
    main(["verify", str(out)])


@needs("beam", "apache_beam")
def test_beam_makes_the_same_folder_as_without_it(raw, local_folder, tmp_path):
    main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam"])
    check_same(local_folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def write_mug(raw) -> None:
    """Takes as frames and as videos, whose intensities are measured, and one that cannot be used."""
    for subject in range(4):
        write_take(raw / f"00{subject}/happiness/take000", subject, first_frame=5)
        write_video(raw / f"00{subject}/happiness/take001.avi", subject)
    write_take(raw / "004/happiness/take000", 4, levels=[0.0])


def write_multipie(raw) -> None:
    """Neutral and smiling pictures under three lights, which share a crop, and one that is no picture."""
    raw.mkdir()
    for subject in range(4):
        for recording, image in enumerate(draw_levels(random_identity(0, subject), [0, 1]), 1):
            for light in (6, 7, 8):
                picture = Image.fromarray(image).resize((200, 200))
                picture.save(raw / f"00{subject + 1}_01_0{recording}_051_{light:02}.png")
    (raw / "005_01_01_051_07.png").write_bytes(b"")


def write_two_people(raw) -> None:
    """One picture of each subject alone, one beside a friend whose face is larger, and copies of pictures."""
    raw.mkdir()
    for subject in range(4):
        face, friend = (Image.fromarray(draw_levels(random_identity(0, k), [0])[0]) for k in (subject, subject + 4))
        for expression in ("neutral", "smile"):
            picture = Image.new("RGB", (600, 300), (120, 140, 120))
            picture.paste(face.resize((150, 150)), (60, 70))
            if expression == "smile":
                picture.paste(friend.resize((215, 215)), (340, 50))
            picture.save(raw / f"s0{subject}_{expression}.png")
    shutil.copy(raw / "s00_neutral.png", raw / "s00_neutral (1).png")
    for expression in ("neutral", "smile"):
        shutil.copy(raw / f"s02_{expression}.png", raw / f"s09_{expression}.png")


LAYOUTS = [("mug", write_mug), ("multipie", write_multipie), ("folder", write_two_people)]


@pytest.mark.parametrize(("source", "write_raw"), LAYOUTS)
@needs("beam", "apache_beam")
def test_every_layout_becomes_the_same_folder_too(source, write_raw, tmp_path, monkeypatch):
    write_raw(tmp_path / "raw")
    if source == "folder":
        monkeypatch.setattr("data_prep.output.beam_pipeline.JOB_PICTURES", 1)  # each picture in a job of its own
    pattern = ["--pattern", PATTERN] if source == "folder" else []
    for name, workers in (("local", ["--workers", "1"]), ("beam", ["--beam"])):
        main([source, str(tmp_path / "raw"), str(tmp_path / name), *pattern, *workers])
    info, local_info = read_info(tmp_path / "beam"), read_info(tmp_path / "local")
    for key in ("content", "splits", "subjects", "rejected", "found_by"):
        assert info[key] == local_info[key], key
    assert all(info["splits"].values()) and info["rejected"], "there is something of each to compare"
    for report in ("rejected.csv", *(["remarks.csv"] if source == "folder" else [])):
        assert (tmp_path / "beam" / report).read_text() == (tmp_path / "local" / report).read_text()


@pytest.mark.slow
@pytest.mark.long
@needs("beam", "apache_beam")
def test_two_beam_processes_make_the_same_folder(raw, local_folder, tmp_path):
    status, _, errors = run_prep("folder", raw, tmp_path / "out", *options(raw), "--beam", *TWO_PROCESSES)
    assert status == 0, errors
    check_same(local_folder, tmp_path / "out")


@linux_only
@pytest.mark.slow
@pytest.mark.long
@needs("beam", "apache_beam")
def test_a_killed_beam_run_leaves_nothing_that_looks_finished(raw, tmp_path):
    out = tmp_path / "out"
    process = start_prep("folder", raw, out, *options(raw), "--beam", *TWO_PROCESSES)
    while not list(tmp_path.glob("out.incomplete-*/jobs/0")):
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert not out.exists() and list(tmp_path.glob("out.incomplete-*"))
    main(["folder", str(raw), str(out), *options(raw), "--beam"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("runner=Nope", "--beam-option runner must be one of .*FlinkRunner.*, got Nope"),
        ("direct_num_worker=2", "must name an option of Beam, .* Did you mean direct_num_workers"),
        ("direct_num_workers=two", "--beam-option: argument --direct_num_workers: invalid int value"),
        ("two words", "--beam-option must be NAME=VALUE"),
    ],
)
@needs("beam", "apache_beam")
def test_an_impossible_option_is_answered_by_a_sentence(raw, tmp_path, option, message):
    with pytest.raises((UserError, SystemExit), match=message):
        main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam", "--beam-option", option])
    assert not list(tmp_path.iterdir())


@needs("beam", "apache_beam")
def test_a_job_server_that_does_not_answer_is_reported_by_a_sentence(raw, tmp_path):
    beam_options = [
        f"--beam-option={o}" for o in ("runner=PortableRunner", "job_endpoint=localhost:9", "job_server_timeout=1")
    ]
    with pytest.raises(SystemExit, match="no job server answered"):
        main(["folder", str(raw), str(tmp_path / "out"), *options(raw), "--beam", *beam_options])


def test_beam_options_need_beam_and_beam_needs_its_library(raw, tmp_path):
    arguments = ["folder", str(raw), str(tmp_path / "out"), *options(raw)]
    with pytest.raises((UserError, SystemExit), match="--beam-option needs --beam"):
        main([*arguments, "--beam-option", "runner=FlinkRunner"])
    code = "import sys; sys.modules['apache_beam'] = None; from data_prep.__main__ import main; "
    code += f"main({[*arguments, '--beam']})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.strip().endswith("pip install 'facedisent-jax[beam]'.")
    assert "Traceback" not in result.stderr
