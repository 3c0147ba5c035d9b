"""The report of a tiny run: all figures of merit, all pictures, only unseen people, nothing half-written."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from tiny_run import HARM, flat_face, harmful, person, tags, write_folder, write_run

from facedisent_jax.data import reading
from facedisent_jax.data.record import Faces, Record
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.stills import subsample_takes
from facedisent_jax.reporting import figures, gallery, html, report

FIGURES = {
    "triplets", "swap", "swap_truth", "interpolation_both", "interpolation_expression", "reconstruction", "intensity",
    "curves",
}  # fmt: skip
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained on four people; eight others are in the test split, with four intensities each."""
    folder = tmp_path_factory.mktemp("report")
    train = [r for k in range(4) for r in person(k)]
    test = [r for k in range(4, 12) for r in person(k, (0.0, 0.2, 0.6, 1.0), EVIL if k == 4 else None)]
    data = write_folder(folder / "data", {"train": train, "validation": person(20), "test": test})
    return write_run(folder / "run", data)


@pytest.fixture(scope="module")
def measured(run):
    return report.write(run, [run.parent / "data"])


def test_metrics_are_nested_as_promised_and_numbers(run, measured):
    assert measured == json.loads((run / "report" / "metrics.json").read_text())
    for path in (
        "reconstruction.psnr", "reconstruction.ssim", "swap.psnr", "swap.ssim", "swap.same_subject_psnr",
        "intensity.spearman", "intensity.mae", "probes.subject_from_expression.accuracy",
        "probes.subject_from_expression.chance", "probes.intensity_from_identity.spearman",
        "probes.intensity_from_identity.chance_mae", "leakage", "baselines.mean_face.psnr", "baselines.pca_64.psnr",
        "baselines.pca_128.ssim", "judged_swaps.smile.followed", "judged_swaps.smile.real_correlation",
    ):  # fmt: skip
        value = measured
        for part in path.split("."):
            value = value[part]
        assert isinstance(value, float) and math.isfinite(value), path
    data = measured["data"]
    assert (data["subjects"], data["pictures"], data["split"], data["step"], data["seed"]) == (8, 32, "test", 0, 3)
    assert data["train_subjects"] == 4


def test_figures_are_drawn_and_linked_from_the_page(run, measured):
    page = (run / "report" / "index.html").read_text()
    files = sorted((run / "report" / "figures").iterdir())
    assert {file.stem for file in files} == FIGURES
    for file in files:
        assert f'src="figures/{file.name}"' in page
        with Image.open(file) as image:
            assert image.width > 500
    assert f"{measured['reconstruction']['psnr']:.2f}" in page and f"{measured['swap']['psnr']:.2f}" in page
    assert "8 people" in page and "seed 3" in page and "nan" not in page.lower()


@pytest.mark.slow
def test_names_are_escaped(run, measured, tmp_path):
    assert EVIL not in (run / "report" / "index.html").read_text()
    evil = tmp_path / "<script>x<"
    (run.parent / "data").rename(evil)
    try:
        report.write(run, [evil])
        page = (run / "report" / "index.html").read_text()
    finally:
        evil.rename(run.parent / "data")
    assert "<script>" not in page and "&lt;script&gt;x&lt;" in page
    assert "No baselines" in page  # the run's own training pictures were not where they had been


def test_no_text_of_the_figures_becomes_a_tag(run, measured):
    drawn = [gallery.GalleryFigure(HARM, HARM, HARM, Image.new("RGB", (2, 2))), gallery.GalleryFigure(HARM, HARM, HARM)]
    plain = [gallery.GalleryFigure("a", "b", "c", Image.new("RGB", (2, 2))), gallery.GalleryFigure("a", "b", "c")]
    made = html.render(HARM, harmful(measured), drawn, [HARM])
    assert tags(made) == tags(html.render("run", measured, plain, ["note"])) and made.count("&lt;script&gt;") > 15


def test_actions_and_people_may_have_any_name():
    image = figures.readings(np.zeros(4), np.zeros(4), np.array(["$\\frac{$", "_x", "a\nb", "n" * 300]))
    assert image.width > 100
    face = flat_face(0, 0.5)
    assert figures.grid([[face]], ["a\x1b[1m\udcff\n" * 50], ["\u202e" + "n" * 300]).height < 1000


def test_the_untrained_reconstruction_is_the_mean_of_each_pictures_psnr(run, measured):
    from facedisent_jax import load
    from facedisent_jax.evaluation import metrics

    faces = reading.read_split(run.parent / "data", "test")
    face = load(run)
    made = face.decode(face.encode(np.asarray(faces.image)))
    assert measured["reconstruction"]["psnr"] == pytest.approx(metrics.psnr(made, faces.image / 255).mean(), abs=1e-3)


def test_the_mean_face_is_fitted_on_training_pictures_and_flips(run, measured):
    from facedisent_jax.evaluation import metrics

    train, test = (np.asarray(reading.read_split(run.parent / "data", s).image) / 255 for s in ("train", "test"))
    both = np.concatenate([train, train[:, :, ::-1]])
    mean = both.mean(0)
    expected = metrics.psnr(np.broadcast_to(mean, test.shape), test).mean()
    assert measured["baselines"]["mean_face"]["psnr"] == pytest.approx(expected, abs=1e-3)
    assert measured["baselines"]["pca_128"]["components"] == np.linalg.matrix_rank((both - mean).reshape(16, -1))


def test_subjects_that_were_trained_on_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"trained on 4 of the 4 subjects.*p000"):
        report.write(run, [run.parent / "data"], split="train")
    other = write_folder(tmp_path / "other", {"test": person(2) + person(30)})
    with pytest.raises(UserError, match=r"trained on 1 of the 2 subjects \(p002\)"):
        report.write(run, [run.parent / "data", other])


def test_other_impossible_requests_are_sentences(run, tmp_path):
    with pytest.raises(UserError, match='no split "tst"'):
        report.write(run, [run.parent / "data"], split="tst")
    empty = write_folder(tmp_path / "empty", {"train": person(50)})
    with pytest.raises(UserError, match="no test pictures"):
        report.write(run, [empty])
    with pytest.raises(UserError, match="nowhere"):
        report.write(run, [tmp_path / "nowhere"])


@pytest.mark.slow
def test_a_report_cut_short_leaves_the_older_one_whole(run, measured, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    before = (run / "report" / "index.html").read_bytes()
    monkeypatch.setattr(report.html, "render", killed)
    with pytest.raises(KeyboardInterrupt):
        report.write(run)
    assert (run / "report" / "index.html").read_bytes() == before


def test_a_page_is_never_beside_figures_of_another_report(tmp_path, monkeypatch):
    def made(folder, text: str, *names: str):
        (folder / "figures").mkdir(parents=True)
        for name in ("metrics.json", "index.html", *(f"figures/{name}.png" for name in names)):
            (folder / name).write_text(text)
        return folder

    old, new = made(tmp_path / "report", "old", "a", "b"), made(tmp_path / "unfinished", "new", "a")
    (old / "figures" / "own.png").write_text("mine")
    replace = report.os.replace

    def killed(source, target):
        if target.name == "metrics.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(report.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        report.publish(new, old, ["figures/a.png", "figures/b.png"])
    assert not (old / "index.html").exists()
    monkeypatch.undo()
    again = made(tmp_path / "again", "newer", "a")
    report.publish(again, old, ["figures/a.png", "figures/b.png"])
    for name in ("index.html", "metrics.json", "figures/a.png"):
        assert (old / name).read_text() == "newer"
    assert {file.name for file in (old / "figures").iterdir()} == {"a.png", "own.png"} and not again.exists()


@pytest.mark.parametrize(
    ("records", "left_out"),
    [
        (person(5, (0.0, 1.0)), {"triplets", "swap", "swap_truth", "interpolation_both"}),
        (
            [Record(flat_face(k, 1.0)) for k in range(5)],
            {"triplets", "swap", "swap_truth", "interpolation_both", "interpolation_expression", "intensity"},
        ),
        (
            [r for k in range(5, 8) for r in person(k, (1.0,))],
            {"triplets", "swap", "swap_truth", "interpolation_both", "interpolation_expression"},
        ),
        ([*person(5), *person(6), Record(flat_face(7, 0.5), "p007", "smile")], set()),
    ],
    ids=["one person", "no labels", "no neutral", "one picture unlabelled"],
)
def test_data_that_does_not_allow_a_figure_gives_a_sentence_instead(run, tmp_path, records, left_out):
    data = write_folder(tmp_path / "data", {"test": records})
    found = report.write(run, [data])
    drawn = {file.stem for file in (run / "report" / "figures").iterdir()}
    assert drawn == FIGURES - left_out  # figures of an earlier report do not stay
    page = (run / "report" / "index.html").read_text()
    assert page.count("Left out") == len(left_out) and "None" not in page
    assert found["reconstruction"]["psnr"] > 0
    assert (found["swap"]["psnr"] is None) == ("swap_truth" in left_out)


def test_of_many_pictures_whole_takes_of_everybody_are_judged():
    many = [r for k in range(10) for take in "ab" for r in person(k, np.linspace(0, 1, 5).tolist(), sequence=take)]
    faces = Faces.of(many)
    chosen = faces.take(subsample_takes(faces, 50))
    assert len(chosen) == 50 and len(set(chosen.subject.tolist())) == 10
    assert all((chosen.subject == name).sum() == 5 for name in set(chosen.subject.tolist()))
    assert len(subsample_takes(faces, 100)) == 100


def test_history_passes_over_a_line_cut_short(run):
    assert [entry["step"] for entry in report.history(run)] == [1, 2]
    assert figures.curves(report.history(run)) is not None
