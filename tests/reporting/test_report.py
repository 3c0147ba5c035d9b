"""The report of a tiny run: all metrics, all figures, only unseen people, never half-written."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from tiny_run import HARM, flat_face, harmful, person, tags, write_folder, write_run

from facedisent_jax.config import ModelConfig
from facedisent_jax.data import reading
from facedisent_jax.data.record import Faces, Record
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import judges
from facedisent_jax.evaluation.judges import Judge, StillJudges
from facedisent_jax.evaluation.metrics import psnr
from facedisent_jax.evaluation.stills import subsample_takes
from facedisent_jax.reporting import figures, html, report
from facedisent_jax.reporting.figures import ReportFigure
from facedisent_jax.reporting.html import MetricRow

FIGURES = {
    "triplets", "one_picture", "swap", "swap_truth", "interpolation_both", "interpolation_expression",
    "reconstruction", "intensity", "curves",
}  # fmt: skip
EVIL_NAME = "<script>alert(1)</script>"

pytestmark = pytest.mark.slow  # nearly all of them read a report of a run


@pytest.fixture(scope="module", autouse=True)
def identity_judge():
    """A stand-in: dlib takes 80 ms an image, and is tested in test_judges."""
    judge = Judge("mean colour", lambda images: images.mean((1, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "identity_judge", lambda margin: judge)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained on four people; eight others are in the test split, with four intensities each."""
    folder = tmp_path_factory.mktemp("report")
    train = [r for k in range(4) for r in person(k)]
    test = [r for k in range(4, 12) for r in person(k, (0.0, 0.2, 0.6, 1.0), EVIL_NAME if k == 4 else None)]
    data = write_folder(folder / "data", {"train": train, "validation": person(20), "test": test})
    return write_run(folder / "run", data)


@pytest.fixture(scope="module")
def metrics(run):
    return report.write(run, [run.parent / "data"])


def test_metrics_have_the_promised_keys_and_are_numbers(run, metrics):
    assert metrics == json.loads((run / "report" / "metrics.json").read_text())
    for key in (
        "reconstruction.psnr", "reconstruction.ssim", "swap.psnr", "swap.ssim", "swap.same_subject_psnr",
        "intensity.spearman", "intensity.mae", "probes.subject_from_expression.accuracy",
        "probes.subject_from_expression.chance", "probes.intensity_from_identity.spearman",
        "probes.intensity_from_identity.chance_mae", "leakage", "baselines.mean_face.psnr", "baselines.pca_64.psnr",
        "baselines.pca_128.ssim", "judged_swaps.smile.followed", "judged_swaps.smile.real_correlation",
        "judged_swaps.identity.distance", "one_picture.identity",
    ):  # fmt: skip
        value = metrics
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, float) and math.isfinite(value), key
    data = metrics["data"]
    assert (data["subjects"], data["pictures"], data["split"], data["step"], data["seed"]) == (8, 32, "test", 0, 3)
    assert data["train_subjects"] == 4


@pytest.mark.long
@pytest.mark.parametrize("code_dims", [32, 256])
def test_codes_of_another_length_give_the_same_report(run, metrics, tmp_path, code_dims):
    model = ModelConfig(width=128, blocks=1, code_dims=code_dims)
    other_metrics = report.write(write_run(tmp_path / "run", run.parent / "data", model=model), [run.parent / "data"])
    assert metrics.keys() == other_metrics.keys()
    assert np.isfinite(other_metrics["swap"]["psnr"])


def test_figures_are_drawn_and_linked_from_the_page(run, metrics):
    page = (run / "report" / "index.html").read_text()
    files = sorted((run / "report" / "figures").iterdir())
    assert {file.stem for file in files} == FIGURES
    for file in files:
        assert f'src="figures/{file.name}"' in page
        with Image.open(file) as image:
            assert image.width > 500
    assert f"{metrics['reconstruction']['psnr']:.2f}" in page and f"{metrics['swap']['psnr']:.2f}" in page
    assert "8 people" in page and "seed 3" in page and "nan" not in page.lower()


def test_names_are_escaped(run, metrics, tmp_path):
    assert EVIL_NAME not in (run / "report" / "index.html").read_text()
    evil_folder = tmp_path / "<script>x<"
    (run.parent / "data").rename(evil_folder)
    try:
        report.write(run, [evil_folder])
        page = (run / "report" / "index.html").read_text()
    finally:
        evil_folder.rename(run.parent / "data")
    assert "<script>" not in page and "&lt;script&gt;x&lt;" in page
    assert "No baselines" in page  # the training images of the run have moved


def test_the_page_links_sliders_for_people_who_were_not_trained_on(run, metrics):
    page, sliders = ((run / "report" / name).read_text() for name in ("index.html", "explore.html"))
    assert '<a href="explore.html">Sliders for 4 of these people</a>' in page
    names = set(re.findall(r'"name": "(.*?)"', sliders))
    assert len(names) == 4 and not names & {f"p{k:03d}" for k in range(4)}


def test_without_sliders_the_page_says_how_to_make_them_and_links_none_of_an_earlier_report(tmp_path):
    class Several:
        expressions = ["smile", "surprise"]

    sliders, link = report.explorer_page(Several(), Faces.of([]), StillJudges(None, None, []), None)  # type: ignore[arg-type]
    assert sliders is None and "explore RUN --expression NAME" in link and "href" not in link
    html.publish(tmp_path / "report", "page", "{}", [], "sliders")
    assert (tmp_path / "report" / "explore.html").read_text() == "sliders"
    html.publish(tmp_path / "report", "page", "{}", [])
    assert not (tmp_path / "report" / "explore.html").exists()


def test_no_text_becomes_a_tag(run, metrics):
    image = Image.new("RGB", (2, 2))
    harmful_figures = [ReportFigure(HARM, HARM, HARM, image), ReportFigure(HARM, HARM, HARM)]
    plain_figures = [ReportFigure("a", "b", "c", image), ReportFigure("a", "b", "c")]
    page = report.render(HARM, harmful(metrics), harmful_figures, [HARM])
    assert tags(page) == tags(report.render("run", metrics, plain_figures, ["note"]))
    assert page.count("&lt;script&gt;") > 15


def test_rows_of_an_earlier_disentangle_are_shown(metrics):
    rows = [MetricRow("MIG", "0.123")]
    assert "MIG" in report.render("run", metrics, [], [], rows) and "MIG" not in report.render("run", metrics, [], [])


def test_actions_and_people_can_have_any_name():
    image = figures.intensity_scatter(np.zeros(4), np.zeros(4), np.array(["$\\frac{$", "_x", "a\nb", "n" * 300]))
    assert image.width > 100
    face = flat_face(0, 0.5)
    assert figures.grid([[face]], ["a\x1b[1m\udcff\n" * 50], ["\u202e" + "n" * 300]).height < 1000


def test_the_psnr_of_the_reconstruction_is_the_mean_over_images(run, metrics):
    from facedisent_jax import load

    faces = reading.read_split(run.parent / "data", "test")
    model = load(run)
    decoded = model.decode(model.encode(np.asarray(faces.image)))
    assert metrics["reconstruction"]["psnr"] == pytest.approx(psnr(decoded, faces.image / 255).mean(), abs=1e-3)


def test_the_mean_face_is_that_of_training_images_and_their_mirror_images(run, metrics):
    train, test = (np.asarray(reading.read_split(run.parent / "data", s).image) / 255 for s in ("train", "test"))
    images = np.concatenate([train, train[:, :, ::-1]])
    mean = images.mean(0)
    expected = psnr(np.broadcast_to(mean, test.shape), test).mean()
    assert metrics["baselines"]["mean_face"]["psnr"] == pytest.approx(expected, abs=1e-3)
    assert metrics["baselines"]["pca_128"]["components"] == np.linalg.matrix_rank((images - mean).reshape(16, -1))


def test_subjects_that_were_trained_on_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"trained on 4 of the 4 subjects.*p000"):
        report.write(run, [run.parent / "data"], split="train")
    other_folder = write_folder(tmp_path / "other", {"test": person(2) + person(30)})
    with pytest.raises(UserError, match=r"trained on 1 of the 2 subjects \(p002\)"):
        report.write(run, [run.parent / "data", other_folder])


def test_other_impossible_requests_are_explained(run, tmp_path):
    with pytest.raises(UserError, match='--split .* got "tst"'):
        report.write(run, [run.parent / "data"], split="tst")
    folder_without_test = write_folder(tmp_path / "empty", {"train": person(50)})
    with pytest.raises(UserError, match="no test images"):
        report.write(run, [folder_without_test])
    with pytest.raises(UserError, match="nowhere"):
        report.write(run, [tmp_path / "nowhere"])


@pytest.mark.long
def test_a_report_cut_short_leaves_the_older_one_whole(run, metrics, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    page = (run / "report" / "index.html").read_bytes()
    monkeypatch.setattr(report, "render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report.write(run)
    assert (run / "report" / "index.html").read_bytes() == page


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match=r"report cannot be written \(.*\): give another --out"):
        html.publish(tmp_path / "report", "page", "{}", [])
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_page_never_stands_beside_figures_of_another_report(tmp_path, monkeypatch):
    def drawings(*names: str) -> list[ReportFigure]:
        return [ReportFigure(name, "", "", Image.new("RGB", (2, 2)) if name == "a" else None) for name in names]

    folder = tmp_path / "report"
    (folder / "figures").mkdir(parents=True)
    for name in ("metrics.json", "index.html", "figures/a.png", "figures/b.png", "figures/own.png"):
        (folder / name).write_text("old")
    replace = html.os.replace

    def replace_or_interrupt(source, target):
        if target.name == "metrics.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(html.os, "replace", replace_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        html.publish(folder, "new", "new", drawings("a", "b"))
    assert not (folder / "index.html").exists()
    monkeypatch.undo()
    html.publish(folder, "newer", "newer", drawings("a", "b"))
    assert (folder / "index.html").read_text() == "newer" and (folder / "metrics.json").read_text() == "newer\n"
    assert {file.name for file in (folder / "figures").iterdir()} == {"a.png", "own.png"}
    assert (folder / "figures" / "own.png").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize(
    ("records", "missing_figures"),
    [
        (person(5, (0.0, 1.0)), {"triplets", "swap", "swap_truth", "interpolation_both"}),
        (
            [Record(flat_face(k, 1.0)) for k in range(5)],
            FIGURES - {"reconstruction", "curves"},
        ),
        (
            [r for k in range(5, 8) for r in person(k, (1.0,))],
            {"triplets", "one_picture", "swap", "swap_truth", "interpolation_both", "interpolation_expression"},
        ),
        ([*person(5), *person(6), Record(flat_face(7, 0.5), "p007", "smile")], set()),
    ],
    ids=["one person", "no labels", "no neutral", "one image unlabelled"],
)
def test_a_figure_that_the_data_does_not_allow_is_replaced_by_the_reason(run, tmp_path, records, missing_figures):
    data = write_folder(tmp_path / "data", {"test": records})
    metrics = report.write(run, [data])
    files = {file.stem for file in (run / "report" / "figures").iterdir()}
    assert files == FIGURES - missing_figures  # figures of an earlier report are gone
    page = (run / "report" / "index.html").read_text()
    assert page.count("Left out") == len(missing_figures) and "None" not in page
    assert metrics["reconstruction"]["psnr"] > 0
    assert (metrics["swap"]["psnr"] is None) == ("swap_truth" in missing_figures)


def test_of_many_images_whole_takes_of_everybody_are_evaluated():
    records = [r for k in range(10) for take in "ab" for r in person(k, np.linspace(0, 1, 5).tolist(), sequence=take)]
    faces = Faces.of(records)
    sample = faces.take(subsample_takes(faces, 50))
    assert len(sample) == 50 and len(set(sample.subject.tolist())) == 10
    assert all((sample.subject == name).sum() == 5 for name in set(sample.subject.tolist()))
    assert len(subsample_takes(faces, 100)) == 100


def test_history_skips_a_line_cut_short(run):
    assert [entry["step"] for entry in report.history(run)] == [1, 2]
    assert figures.training_curves(report.history(run)) is not None
