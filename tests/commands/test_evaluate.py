"""The commands of eval.py: what they write, how quickly they answer, and that every mistake is a sentence."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from extras import hide_judges, needs
from PIL import Image
from tiny_run import ROOT, SHARED, flat_face, person, write_folder, write_run

from facedisent_jax import trained_model
from facedisent_jax.commands import evaluate, photographs
from facedisent_jax.config import ModelConfig
from facedisent_jax.data.reading import read_info


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "eval.py", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    data = write_folder(
        folder / "data", {"train": [r for k in range(3) for r in person(k)], "test": person(4) + person(5)}
    )
    for k in range(3):
        Image.fromarray(flat_face(30 + k, k / 2)).save(folder / f"photo{k}.png")
    return write_run(folder / "run", data, {"detector": "haar", "margin": 0.0})


def test_help_and_typos_are_answered_without_jax_or_tensorflow():
    start = os.times()
    assert "interpolate" in command("--help").stdout
    assert "--step" in command("report", "--help").stdout
    typo = command("reprot", "runs/x")
    assert typo.returncode and typo.stderr.strip().endswith("got 'reprot'. Did you mean report?")
    option = command("interpolate", "runs/x", "a.png", "b.png", "--stps", "3")
    assert option.returncode and "--steps" in option.stdout + option.stderr
    end = os.times()  # time of the processors, which a busy machine does not change
    assert end.children_user + end.children_system - start.children_user - start.children_system < 4 * 2
    libraries = "('jax', 'flax', 'tensorflow', 'matplotlib')"
    script = f"import sys, facedisent_jax.commands.evaluate; print([m for m in {libraries} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
def test_report_writes_the_page_and_says_where(run, monkeypatch, capsys):
    """Elsewhere too, without a change of the run, which may be read-only."""
    hide_judges(monkeypatch)
    folder = run.parent / "paper" / "report"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    evaluate.run(["report", str(run), "--data", str(run.parent / "data"), "--out", str(folder)])
    output = capsys.readouterr().out
    assert output.strip().endswith(str(folder / "index.html"))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert "4 test images of 2 held-out subjects" in output and "pca 128" in output
    assert (folder / "metrics.json").is_file()
    assert "Identity distance is missing" in (folder / "index.html").read_text()


@pytest.fixture(scope="module")
def clips(run):
    """A data folder of three unseen people with eleven levels each, one of them to train a reader on."""
    levels = [k / 10 for k in range(11)]
    return write_folder(
        run.parent / "clips", {"train": person(8, levels), "test": person(6, levels) + person(7, levels)}
    )


@pytest.mark.slow
def test_video_and_compare_write_their_tables_and_say_where(run, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no face mesh that happens to be there
    hide_judges(monkeypatch)
    options = ["--data", str(clips), "--clips", "2"]
    evaluate.run(["video", str(run), *options])
    output = capsys.readouterr().out
    assert output.strip().endswith(str(run / "video" / "index.html"))
    assert "2 clips of 2 held-out subjects, 22 onset frames" in output and "cross-fade" in output
    assert "by a fallback. The face mesh needs pip install" in output
    evaluate.run(["compare", str(run), f"again={run}", *options, "--out", str(tmp_path / "table.csv")])
    printed = capsys.readouterr()
    assert "Evaluating" not in printed.err  # what the first command measured is used
    assert "difference to the first" in printed.out
    assert (tmp_path / "table.csv").read_text().startswith("method,metric")


@pytest.mark.slow
def test_interpolate_writes_strips_and_animations(run, tmp_path):
    a, b = (run.parent / f"photo{k}.png" for k in (0, 1))
    sizes = {}
    for name in ("strip.jpg", "film.gif", "film.mp4"):
        photographs.interpolate(run, a, b, steps=4, move="both", out=tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    for name in ("strip.jpg", "film.gif"):
        with Image.open(tmp_path / name) as image:
            sizes[name] = image.size, getattr(image, "n_frames", 1)
    assert sizes["film.gif"] == ((256, 256), 6) and sizes["strip.jpg"][0][0] > 6 * 192


def test_a_strip_begins_and_ends_with_the_photographs(run, tmp_path):
    from facedisent_jax.reporting.figures import BORDER

    a, b = (run.parent / f"photo{k}.png" for k in (0, 1))
    photographs.interpolate(run, a, b, steps=3, move="both", out=tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as image:
        strip, side = np.asarray(image.convert("RGB")), 192
    for path, columns in ((a, slice(BORDER, BORDER + side)), (b, slice(-BORDER - side, -BORDER))):
        with Image.open(path) as photo:
            real = np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS))
        assert (strip[-BORDER - side : -BORDER, columns] == real).all()


def test_where_no_photograph_is_usable_each_is_named_with_the_reason(run, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match="must be an image to encode"):
        evaluate.run(["encode", str(run), str(tmp_path / "broken.png"), "--out", str(tmp_path / "codes.csv")])
    assert "broken.png: not an image" in capsys.readouterr().err and not (tmp_path / "codes.csv").exists()


def test_a_model_is_called_by_where_its_run_lies(run, tmp_path):
    (tmp_path / "copy").symlink_to(run)
    assert repr(trained_model.load(tmp_path / "copy")).startswith(f"TrainedModel('{tmp_path}/copy', step ")


def test_photographs_are_encoded_to_a_table_and_its_codes_are_decoded_again(run, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(2):
        shutil.copy(run.parent / f"photo{k}.png", photos)
    (photos / "broken.png").write_bytes(b"no image")
    table = tmp_path / "codes.csv"
    evaluate.run(["encode", str(run), str(photos), str(run.parent / "data"), "--out", str(table)])
    printed = capsys.readouterr()
    assert "Left out" in printed.err and "broken.png" in printed.err and "1 left out" in printed.out
    rows = table.read_text().splitlines()
    assert len(rows) == 1 + 2 + sum(read_info(run.parent / "data")["splits"].values())
    assert rows[1].startswith(f"{photos / 'photo0.png'},,,,")
    assert rows[3].startswith(f"{run.parent / 'data'}/train/0,p000,")
    evaluate.run(["decode", str(run), str(table), "--out", str(tmp_path / "decoded")])
    model = trained_model.load(run)
    expected = model.decode(model.encode(np.asarray(Image.open(photos / "photo0.png"))[None]))[0]
    decoded = np.asarray(Image.open(tmp_path / "decoded" / "0000.png")) / 255
    assert decoded == pytest.approx(expected, abs=0.5 / 255 + 1e-6)
    with pytest.raises(SystemExit, match="must be a new folder"):
        evaluate.run(["decode", str(run), str(table), "--out", str(tmp_path / "decoded")])
    with pytest.raises(SystemExit, match="must not be an input, nor lie in one"):
        evaluate.run(["encode", str(run), str(photos), "--out", str(photos / "codes.csv")])


@pytest.mark.slow
def test_swap_writes_a_grid_of_all_with_all(run, tmp_path):
    photos = [run.parent / f"photo{k}.png" for k in range(3)]
    result = command("swap", run, *photos, "--out", tmp_path / "grid.png")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width > 4 * 192 and image.height > 4 * 192
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_own_photographs_are_cropped_as_in_prep(run, tmp_path):
    photo = SHARED / "data" / "london_faces" / "images" / "002_neutral.jpg"
    if not photo.is_file():
        pytest.skip("needs a photograph of a face, from the data folder shared beside the repository")
    from data_prep.cropping import face_crop, user_photos

    small_photo = tmp_path / "small.png"
    Image.fromarray(face_crop.crop_photo(photo, "haar", 0.2)).save(small_photo)
    image, small_image = user_photos.crop_photos([photo, small_photo], {"detector": "haar", "margin": 0.2}, None)
    assert (image == small_image).all()
    crops = user_photos.crop_photos([photo], {"detector": "points", "margin": 0.2}, None)
    assert (crops[0] == image).all()  # no photograph comes with points: the same square is then found by Haar


def test_where_no_face_is_looked_for_that_is_said_of_photographs_and_not_of_crops(tmp_path, capsys):
    from data_prep.cropping import user_photos

    Image.new("RGB", (64, 64)).save(tmp_path / "crop.png")
    Image.new("RGB", (80, 80)).save(tmp_path / "photograph.png")
    for name, is_noted in (("crop", False), ("photograph", True)):
        user_photos.crop_photos([tmp_path / f"{name}.png"], {"detector": "none", "margin": 0.0}, None)
        assert ("No face is looked for" in capsys.readouterr().err) == is_noted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "{folder}/nowhere"], "no run folder"),
        (["report", "{run}", "--step", "7"], "--step must be best, last or one of [0]"),
        (["report", "{run}", "--step", "bst"], "--step must be best, last or one of [0]"),
        (["report", "{run}", "--data", "{folder}/nothing"], "no data folder"),
        (["report", "{run}", "--split", "train"], "was trained on 3 of the 3 subjects (p000, p001, p002)"),
        (["report", "{run}", "--out", "{folder}"], "--out must be a new folder, or that of an earlier report"),
        (["video", "{run}", "--out", "{photo}"], "--out must be a new folder, or that of an earlier report"),
        (["interpolate", "{run}", "{photo}", "--expression", "smlie"], "got smlie. Did you mean smile?"),
        (["interpolate", "{run}", "{photo}", "{photo}", "--like", "{photo}"], "--like must be given without B"),
        (["interpolate", "{run}", "{photo}", "--like", "{photo}"], "--like must go to a model whose expression code"),
        (["video", "{run}"], "no clips in"),
        (["disentangle", "{run}"], "labelled images of at least 5 people, got 2"),
        (["video", "{run}", "--split", "train"], "was trained on 3 of the 3 subjects"),
        pytest.param(
            ["video", "{run}", "--landmarker", "{folder}/nothing.task"],
            "--landmarker must be the file",
            marks=needs("landmarks", "ai_edge_litert"),
        ),
        (["video", "{run}", "--clips", "-2"], "--clips must be 0 (all) or a number of clips, got -2"),
        (["compare", "{run}"], "at least two runs or groups, got 1"),
        (["compare", "{run}", "{run}"], "must be given once"),
        (["compare", "{run}", "b={run}", "--out", "{folder}/table.tex"], ".csv or .json"),
        (["compare", "{run}", "b={run}", "--out", "{folder}/no/table.csv"], "--out must be in an existing folder"),
        (["compare", "{run}", "b={folder}/nowhere"], "no clips in"),
        (["interpolate", "{run}", "{folder}/photo0.png", "{folder}/nobody.jpg"], "input must be an existing file"),
        (["interpolate", "{run}", "{photo}", "{photo}", "--out", "{folder}/strip.tif"], '".tif"'),
        (
            ["interpolate", "{run}", "{photo}", "{photo}", "--out", "{folder}/no/strip.png"],
            "--out must be in an existing folder",
        ),
        (["interpolate", "{run}", "{photo}", "{photo}", "--steps", "1"], "at least 2"),
        (["interpolate", "{run}", "{folder}/run/metrics.jsonl", "{photo}"], "cannot be used"),
        (["interpolate", "{run}", "{folder}/wall.png", "{photo}"], "no face was found"),
        (["swap", "{run}", "{photo}"], "two photographs"),
        (["swap", "{run}", "{photo}", "{photo}", "--out", "{folder}/grid.mp4"], '".mp4"'),
        (["swap", "{run}", "{folder}/photo1.png", "{photo}", "--out", "{photo}"], "--out must not be an input"),
        (["interpolate", "{run}", "{photo}", "--out", "{folder}/run/../photo0.png"], "--out must not be an input"),
        (["compare", "{run}", "b={run}", "--out", "{run}/table.json"], "--out must not be an input, nor lie in one"),
        (["compare", "{run}", "b={run}", "--out", "{folder}/data/prep.json"], "--out must not be an input"),
        (
            ["compare", "{run}", "b={run}", "--data", "{folder}/more", "--out", "{folder}/more/prep.json"],
            "--out must not be an input",
        ),
        (["table1", "--data", "{folder}/data", "--out", "{folder}/data/runs"], "--out must not be an input"),
    ],
)
def test_mistakes_are_sentences(run, arguments, message, monkeypatch, capsys):
    """In this process, for speed, through the same entry as the command line's."""
    folder = run.parent
    Image.new("RGB", (200, 150), "grey").save(folder / "wall.png")
    (folder / "more").mkdir(exist_ok=True)
    command_line = [a.format(run=run, folder=folder, photo=folder / "photo0.png") for a in arguments]
    with pytest.raises(SystemExit) as system_exit:
        evaluate.run(command_line)
    assert message in str(system_exit.value.code) and "\n" not in str(system_exit.value.code)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_photograph_is_not_overwritten_through_a_link(run, tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    shutil.copy(run.parent / "photo0.png", "me.png")
    link("me.png", "out.png")
    before = (tmp_path / "me.png").read_bytes()
    with pytest.raises(SystemExit, match=r"--out must not be an input, .* got out.png \(input .*me.png\)"):
        evaluate.run(["swap", str(run), str(tmp_path / "me.png"), str(run.parent / "photo1.png"), "--out", "out.png"])
    assert (tmp_path / "me.png").read_bytes() == (tmp_path / "out.png").read_bytes() == before


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(evaluate.COMMANDS, "report", lambda: [][0])
    with pytest.raises(IndexError):
        evaluate.run(["report"])


@pytest.mark.slow
@pytest.mark.long
def test_interpolate_with_a_source_image_goes_to_an_intensity_or_beyond_the_second_photograph(tmp_path):
    data = write_folder(tmp_path / "data", {"train": person(0) + person(1)})
    run = write_run(tmp_path / "run", data, model=ModelConfig(kind="warp", width=128, blocks=1))
    for k in range(2):
        Image.fromarray(flat_face(30, float(k))).save(tmp_path / f"{k}.png")
    smiling = str(tmp_path / "1.png")
    for ends in (["--to", "0.7"], [smiling, "--to", "1.3"]):
        out = tmp_path / "out.png"
        evaluate.run(["interpolate", str(run), str(tmp_path / "0.png"), *ends, "--out", str(out)])
        assert out.is_file()
        out.unlink()
