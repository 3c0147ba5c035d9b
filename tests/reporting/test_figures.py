"""Grids, labels, curves and animations: complete, in the right place, written whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from facedisent_jax.errors import UserError
from facedisent_jax.files import STILLS, check_suffix
from facedisent_jax.reporting import figures
from facedisent_jax.reporting.figures import BORDER, GAP, MARGIN_GAP, SCALE

SIDE = 64 * SCALE


def flat(*colour: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (64, 64, 3))


def colour_at(image: Image.Image, x: int, y: int):
    return image.getpixel((x, y))


def test_each_face_is_in_its_cell_on_white_with_the_margins_apart():
    cells = [[None, flat(9, 0, 0), flat(0, 9, 0)], [flat(0, 0, 9), flat(90, 0, 0), flat(0, 90, 0)]]
    image = figures.grid(cells, margin_rows=1, margin_columns=1)
    middle = [BORDER + SIDE // 2 + k * (SIDE + GAP) + (MARGIN_GAP if k else 0) for k in range(3)]
    for r in range(2):
        for c in range(3):
            cell = cells[r][c]
            expected = (255, 255, 255) if cell is None else tuple(cell[0, 0])
            assert colour_at(image, middle[c], middle[r]) == expected
    assert image.size == (middle[2] + SIDE // 2 + BORDER, middle[1] + SIDE // 2 + BORDER)
    gap = middle[0] + SIDE // 2 + MARGIN_GAP // 2  # between the margin and the other faces
    assert colour_at(image, gap, middle[1]) == (255, 255, 255)


def test_floats_and_bytes_are_drawn_alike():
    face = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert (np.asarray(figures.enlarge(face)) == np.asarray(figures.enlarge(face / 255))).all()
    bright_image = figures.enlarge(np.full((64, 64, 3), 1.2))
    assert colour_at(bright_image, 5, 5) == (255, 255, 255)  # clipped, not wrapped to black


@pytest.mark.parametrize(
    "label", ["001", "a_person_with_a_very_long_name_0123456789" * 3, "two\nlines", "Ελένη", "<b>&"]
)
def test_labels_stay_inside_the_figure(label):
    image = figures.grid([[flat(200, 200, 200)] * 2], top=[label, label], left=[label])
    ink = np.asarray(image.convert("L")) < 100
    assert ink.any()
    assert not (ink[:4].any() or ink[-4:].any() or ink[:, :4].any() or ink[:, -4:].any())
    assert not ink[-(BORDER + SIDE) :, -(BORDER + 2 * SIDE + GAP) :].any()  # no ink on the faces


def test_labels_of_wide_figures_are_larger_so_that_print_stays_readable():
    def tallest(columns: int) -> int:
        image = np.asarray(figures.grid([[flat(255, 255, 255)] * columns], top=["0.5"] * columns).convert("L"))
        return int((image < 100).any(1).sum())

    assert tallest(13) > 1.4 * tallest(6)


def test_labels_of_very_wide_figures_are_all_of_one_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(figures, "_font", lambda size, make=figures._font: sizes.append(size) or make(size))
    labels = ["a", *(f"{k / 70:.2f}" for k in range(70)), "b"]
    figures.grid([[np.zeros((64, 64, 3))] * len(labels)], labels)
    assert len(set(sizes)) == 1


def test_a_figure_is_saved_at_300_dots_per_inch_and_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "strip.png"
    figures.save(figures.grid([[flat(1, 2, 3)]]), path)
    content = path.read_bytes()
    with Image.open(path) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)

    def interrupt(self, file, **_):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        figures.save(Image.new("RGB", (4, 4)), path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_animations_run_forwards_and_backwards(tmp_path, suffix):
    frames = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((64, 64, 3))
    path = tmp_path / f"animation{suffix}"
    figures.animate(frames, path)
    if suffix == ".mp4":
        import cv2

        video = cv2.VideoCapture(str(path))
        brightness = []
        while (success_and_frame := video.read())[0]:
            brightness.append(success_and_frame[1].mean() / 255)
    else:
        with Image.open(path) as animation:
            brightness = [np.asarray(frame.convert("RGB")).mean() / 255 for frame in ImageSequence.Iterator(animation)]
    assert brightness == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25], abs=0.03)


def test_unknown_endings_and_missing_folders_are_explained(tmp_path):
    with pytest.raises(UserError, match=r'\.png.*got "\.tiff"'):
        figures.save(Image.new("RGB", (4, 4)), tmp_path / "a.tiff")
    with pytest.raises(UserError, match='got ""'):
        check_suffix(Path("strip"), STILLS)
    with pytest.raises(UserError, match="no folder"):
        figures.save(Image.new("RGB", (4, 4)), tmp_path / "nowhere" / "a.png")


def test_training_curves_show_loss_terms_and_validation_and_allow_zeros_and_an_empty_log():
    history = [{"step": s, "reconstruction": 1 / s, "label": 0.0, "images_per_second": 1e3} for s in (1, 2, 3)]
    terms_figure = figures.training_curves(history)
    figure = figures.training_curves([*history, {"step": 3, "validation/swap_psnr": 20.0, "validation/error": 0.1}])
    assert terms_figure is not None and figure is not None and figure.width > 1.5 * terms_figure.width
    assert figures.training_curves([]) is None
    assert figures.training_curves([{"step": 1, "images_per_second": 9.0}]) is None
