"""Reading pictures of every kind, the geometry of the crop, and finding faces."""

import hashlib
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from extras import needs
from PIL import Image
from tiny_run import SHARED

from data_prep.cropping import crop, face_crop, face_mesh, image_io, jobs
from data_prep.cropping.face_crop import Box
from data_prep.layouts import mat_landmarks
from data_prep.layouts.scan import Source
from facedisent_jax.errors import UserError

LONDON = SHARED / "data" / "london_faces"
MODEL = SHARED / "models" / "face_landmarker.task"
needs_london = pytest.mark.skipif(not LONDON.is_dir(), reason="the London photographs are not on this machine")


def scene(width: int = 300, height: int = 240) -> np.ndarray:
    """A smooth picture in which every place has its own colour."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, 128 + 60 * np.sin(x / 30) * np.cos(y / 30)], -1).astype(
        np.uint8
    )


def save_image(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(image_io.read_image(path).pixels)


def test_greyscale_palette_and_cmyk_become_rgb(tmp_path):
    colour = Image.fromarray(scene())
    grey = read(save_image(tmp_path / "g.png", colour.convert("L")))
    assert grey.shape == (240, 300, 3) and (grey[..., 0] == grey[..., 2]).all()
    palette = read(save_image(tmp_path / "p.png", colour.quantize(256)))
    assert np.abs(palette.astype(int) - scene()).mean() < 8
    cmyk = read(save_image(tmp_path / "c.jpg", colour.convert("CMYK"), quality=95))
    assert np.abs(cmyk.astype(int) - scene()).mean() < 8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 300 * 240).reshape(240, 300)
    expected = np.round(values / 257)
    for name in ("a.png", "a.tif", "a.pgm"):
        image = read(save_image(tmp_path / name, Image.fromarray(values.astype(np.uint16))))
        assert image.shape == (240, 300, 3)
        assert np.abs(image[..., 0] - expected).max() <= 1
    float_image = read(save_image(tmp_path / "f.tif", Image.fromarray((values / 65535).astype(np.float32))))
    assert np.abs(float_image[..., 0] - expected).max() <= 1


def test_what_is_transparent_lies_over_white(tmp_path):
    rgba = np.dstack([scene(), np.zeros((240, 300), np.uint8)])
    rgba[50:200, 50:200, 3] = 255
    image = read(save_image(tmp_path / "a.png", Image.fromarray(rgba)))
    assert (image[:50] == 255).all() and (image[50:200, 50:200] == scene()[50:200, 50:200]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_sideways_gives_an_upright_picture(tmp_path, orientation):
    upright = Image.fromarray(scene())
    transposes = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that EXIF's orientation undoes
    stored_image = upright if orientation == 1 else upright.transpose(Image.Transpose(transposes[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_image(tmp_path / "a.png", stored_image, exif=exif)
    image = image_io.read_image(path)
    assert image.size == (300, 240)
    assert (np.asarray(image.pixels) == scene()).all()


def faulty_files(folder: Path) -> dict[str, Path]:
    jpeg = save_image(folder / "whole.jpg", Image.fromarray(scene())).read_bytes()
    png = save_image(folder / "whole.png", Image.fromarray(scene())).read_bytes()
    header = b"IHDR" + (30000).to_bytes(4, "big") * 2 + png[24:29]
    contents = {
        "empty file": b"",
        "not an image": b"Dear Sir or Madam, " * 50,
        "truncated image": jpeg[: len(jpeg) // 2],
        "damaged image": png[:100] + b"\0" * 200 + png[300:],
        "more than 150 million pixels": png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:],
    }
    out = {}
    for reason, content in contents.items():
        out[reason] = folder / f"{reason.replace(' ', '_')}.png"
        out[reason].write_bytes(content)
    out["missing file, or a broken link"] = folder / "gone.png"
    os.mkfifo(folder / "pipe.png")
    out["a folder or a device"] = folder / "pipe.png"
    return out


def test_a_file_that_is_no_picture_gives_its_reason_and_nothing_else(tmp_path):
    for reason, path in faulty_files(tmp_path).items():
        with pytest.raises(image_io.ImageError, match=f"^{reason}"):
            image_io.read_image(path)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_named_with_what_to_do_whatever_the_name_of_the_file(tmp_path, brand):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    with pytest.raises(image_io.ImageError, match="^HEIC image, which cannot be read here: convert it to JPEG or PNG"):
        image_io.read_image(tmp_path / "a.jpg")


def test_avif_is_read_where_pillow_reads_it_and_else_named(tmp_path, monkeypatch):
    if "AVIF" in image_io.FORMATS:
        image = read(save_image(tmp_path / "a.avif", Image.fromarray(scene()), quality=90))
        assert np.abs(image.astype(int) - scene()).mean() < 4
    else:
        (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(100))
    monkeypatch.setattr(image_io, "FORMATS", ("PNG",))
    with pytest.raises(image_io.ImageError, match="^AVIF image, which cannot be read here: convert it to JPEG or PNG"):
        image_io.read_image(tmp_path / "a.avif")


def test_postscript_is_not_run(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(image_io.ImageError, match="not an image"):
        image_io.read_image(tmp_path / "a.jpg")


def test_a_large_jpeg_is_read_smaller_when_that_is_enough(tmp_path):
    path = save_image(tmp_path / "a.jpg", Image.fromarray(scene(1600, 1200)), quality=95)
    image = image_io.read_image(path, longest=400)
    assert image.pixels.size == (400, 300) and image.size == (1600, 1200)
    assert image_io.read_image(path, shrink=0.9).pixels.size == (1600, 1200)


def test_the_tight_crop_is_2_6_eye_distances_wide_and_0_45_below_the_eyes():
    box = face_crop.square_on_eyes(np.array([50, 62.5]), np.array([100, 62.5]))
    assert tuple(box) == pytest.approx((10, 20, 140, 150))
    turned_box = face_crop.square_on_eyes(np.array([100, 62.5]), np.array([50, 62.5]))
    assert tuple(turned_box) == pytest.approx(tuple(box))


def test_the_margin_widens_around_the_same_centre():
    assert tuple(Box(10, 20, 110, 120).square(0.5)) == (-15, -5, 135, 145)
    assert tuple(Box(0, 0, 100, 60).square()) == (0, -20, 100, 80)


def test_a_crop_shows_what_is_in_its_box():
    picture = Image.fromarray(scene(600, 480))
    box = Box(101.5, 60.25, 293.5, 252.25)
    image = face_crop.cut_square(picture, box).astype(float)
    assert image.shape == (64, 64, 3)
    x = box.left + (np.arange(64) + 0.5) * 3  # where the pixels of the crop lie
    y = box.top + (np.arange(64) + 0.5) * 3
    assert np.abs(image[..., 0] - (x[None] - 0.5) * 255 / 600).max() < 2
    assert np.abs(image[..., 1] - (y[:, None] - 0.5) * 255 / 480).max() < 2


def test_beyond_the_picture_its_edge_goes_on():
    picture = Image.fromarray(scene(200, 200))
    image = face_crop.cut_square(picture, Box(-64, 50, 64, 178)).astype(int)
    assert np.abs(image[:, :30] - image[:, :1]).max() <= 2, "left of the picture every row has one colour"
    image_inside = face_crop.cut_square(picture, Box(0, 50, 64, 178 - 64)).astype(int)
    assert np.abs(image[:32, 34:62:2].mean() - image_inside[:, 4:60:4].mean()) < 3


def test_fine_stripes_are_averaged_not_sampled():
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(face_crop.cut_square(Image.fromarray(stripes), Box(0, 0, 640, 640)).astype(int) - 127).max() <= 8


def group(*paths: Path, **fields) -> list[Source]:
    return [Source(path, path.name, "g", **fields) for path in paths]


def test_one_box_serves_its_whole_crop_group_and_damaged_pictures_are_listed(tmp_path):
    first_path = save_image(tmp_path / "1.png", Image.fromarray(scene()))
    second_path = save_image(tmp_path / "2.png", Image.fromarray(255 - scene()))
    (tmp_path / "0.png").write_bytes(b"")
    box = Box(40.0, 30.0, 168.0, 158.0)
    sources = group(tmp_path / "0.png", first_path, second_path)
    sources[1] = sources[1]._replace(box=tuple(box))
    crops, location = crop.crop_group(sources, crop.Cropping("boxes"))
    assert [source.key for source in crops.sources] == ["1.png", "2.png"] and crops.found_by == ["given", "given"]
    assert (crops.images[0] == face_crop.cut_square(Image.fromarray(scene()), box)).all()
    assert (crops.images[1] == face_crop.cut_square(Image.fromarray(255 - scene()), box)).all()
    assert crops.rejected == [("0.png", "empty file")] and location is not None


def test_a_smaller_copy_in_the_group_is_cut_at_the_same_place_another_shape_is_not(tmp_path):
    sources = group(
        save_image(tmp_path / "1.png", Image.fromarray(scene(600, 480))),
        save_image(tmp_path / "2.png", Image.fromarray(scene(600, 480)).resize((300, 240))),
        save_image(tmp_path / "3.png", Image.fromarray(scene(480, 600))),
    )
    sources[0] = sources[0]._replace(box=(100.0, 100.0, 300.0, 300.0))
    crops, _ = crop.crop_group(sources, crop.Cropping("boxes", margin=0.2))
    assert len(crops.images) == 2 and np.abs(crops.images[0].astype(int) - crops.images[1]).mean() < 3
    assert crops.rejected[0].key == "3.png" and "not of the same aspect ratio" in crops.rejected[0].reason


def test_a_large_jpeg_read_at_reduced_size_gives_the_same_crop(tmp_path):
    photograph = Image.fromarray(scene(2400, 1920))
    box = (480.0, 320.0, 1504.0, 1344.0)
    sources = group(*(save_image(tmp_path / f"{k}.jpg", photograph, quality=95) for k in range(2)))
    sources[0] = sources[0]._replace(box=box)
    crops, _ = crop.crop_group(sources, crop.Cropping("boxes", margin=0.5))
    expected = face_crop.cut_square(photograph, Box(*box).square(0.5)).astype(int)
    assert image_io.read_image(sources[1].path, shrink=128 / 1024).pixels.size == (300, 240)
    for image in crops.images:
        assert np.abs(image - expected).mean() < 1.5 and np.abs(image - expected).max() < 12


def test_a_long_sequence_is_cropped_in_parts_at_one_place(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "PART_IMAGES", 3)
    paths = [save_image(tmp_path / f"{k}.png", Image.fromarray(scene())) for k in range(8)]
    sources = group(*paths)
    sources[1] = sources[1]._replace(box=(40.0, 30.0, 168.0, 158.0))
    other_group = [Source(paths[0], "other", "h", box=(40.0, 30.0, 168.0, 158.0))]
    parts = list(jobs.crop_all([*sources, *other_group], crop.Cropping("boxes"), 1))
    assert sorted(len(part.sources) for part in parts) == [1, 2, 3, 3]
    expected = face_crop.cut_square(Image.fromarray(scene()), Box(40, 30, 168, 158))
    assert all((image == expected).all() for part in parts for image in part.images)
    assert not any(part.rejected for part in parts)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10.0, 10.0, 20.0, 20.0), "face less than 16 pixels wide"),
        ((500.0, 10.0, 600.0, 110.0), "most of the crop lies outside the image"),
        (None, "no box given"),
    ],
)
def test_a_crop_that_would_show_nothing_is_left_out(tmp_path, box, reason):
    (source,) = group(save_image(tmp_path / "1.png", Image.fromarray(scene())), box=box)
    crops, _ = crop.crop_group([source], crop.Cropping("boxes"))
    assert crops.rejected == [("1.png", reason)] and len(crops.images) == 0


def test_a_picture_without_a_face_is_left_out_and_one_of_64_pixels_is_used_as_it_is(tmp_path):
    sources = [
        *group(save_image(tmp_path / "1.png", Image.fromarray(scene()))),
        *group(save_image(tmp_path / "2.png", Image.fromarray(scene(64, 64)))),
    ]
    crops, _ = crop.crop_group(sources, crop.Cropping("haar"))
    assert crops.rejected == [("1.png", "no face found")] and (crops.images[0] == scene(64, 64)).all()


def test_mat_labels_place_the_crop_and_other_mat_files_do_not(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    at = np.full((68, 2), 100.0)
    at[[36, 39, 42, 45]] = [(140, 120), (160, 120), (190, 120), (210, 120)]
    scipy_io.savemat(tmp_path / "a.mat", {"pts": at})
    scipy_io.savemat(tmp_path / "few.mat", {"pts": at[:39]})
    scipy_io.savemat(tmp_path / "other.mat", {"pts": np.array([["x"]], object)})
    (tmp_path / "broken.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:150])
    for name in ("few", "other", "broken"):
        assert mat_landmarks.read_mat_landmarks(tmp_path / f"{name}.mat") is None
    path = save_image(tmp_path / "1.png", Image.fromarray(scene(400, 300)))
    (source,) = group(path, landmark_file=tmp_path / "a.mat")
    crops, location = crop.crop_group([source], crop.Cropping("haar"))
    assert crops.found_by == ["labels"] and location is not None
    assert tuple(location.box) == pytest.approx((110, 77.5, 240, 207.5))


def test_a_photograph_that_cannot_be_used_gets_one_sentence(tmp_path):
    wall = save_image(tmp_path / "wall.jpg", Image.fromarray(scene()))
    with pytest.raises(UserError, match="wall.jpg must show one upright face from the front, got 300x240 pixels"):
        face_crop.crop_photo(wall)
    with pytest.raises(UserError, match="gone.jpg cannot be used: missing file"):
        face_crop.crop_photo(tmp_path / "gone.jpg")


def test_without_litert_the_mesh_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"pip install 'facedisent-jax\[landmarks\]'"):
        face_mesh.load_mesh(tmp_path / "some.task")
    with pytest.raises(UserError, match=r"pip install 'facedisent-jax\[landmarks\]'"):
        face_mesh.model_file(None, "file:///nowhere")  # said before anything is fetched


def test_the_mesh_model_is_fetched_once_and_only_the_right_one(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(face_mesh, "_interpreter_class", lambda: None)  # fetching needs no network to run
    source_file = tmp_path / "published.task"
    source_file.write_bytes(b"some other file")
    with pytest.raises(UserError, match="must send the face mesh model with sha256"):
        face_mesh.model_file(None, source_file.as_uri())
    monkeypatch.setattr(face_mesh, "SHA256", hashlib.sha256(b"some other file").hexdigest())
    model_file = face_mesh.model_file(None, source_file.as_uri())
    assert model_file.read_bytes() == b"some other file" and tmp_path in model_file.parents
    source_file.unlink()
    assert face_mesh.model_file(None, source_file.as_uri()) == model_file
    with pytest.raises(UserError, match="--landmarker must be the file face_landmarker.task, got .*nowhere.task"):
        face_mesh.model_file(tmp_path / "nowhere.task")
    model_file.unlink()
    with pytest.raises(UserError, match="could not be fetched .*--landmarker FILE"):
        face_mesh.model_file(None, source_file.as_uri())


@needs("landmarks", "ai_edge_litert")
def test_a_file_that_is_no_face_mesh_is_named(tmp_path):
    (tmp_path / "some.task").write_bytes(b"no zip")
    with pytest.raises(UserError, match="some.task must be a face_landmarker.task file"):
        face_mesh.load_mesh(tmp_path / "some.task")


def london(detector: str, mesh=None, people: int = 12) -> np.ndarray:
    """For some people: shift of the eyes' middle between neutral and smile, log ratio of scale; and placing errors."""
    import csv

    rows = list(csv.reader((LONDON / "landmarks_68.csv").open()))[1 : 1 + 2 * people]
    out = {}
    for subject, expression, *numbers in rows:
        at = np.reshape(np.array(numbers, float), (68, 2))
        eyes = at[[36, 39]].mean(0), at[[42, 45]].mean(0)
        box = face_crop.locate_face(
            image_io.read_image(LONDON / "images" / f"{subject}_{expression}.jpg").pixels, detector, mesh
        )
        assert box is not None
        true_box = face_crop.square_on_points(at)
        out[subject, expression] = (
            (np.mean(eyes, 0) - box[:2]) / box.side * 64,
            np.linalg.norm(eyes[1] - eyes[0]) / box.side,
            box.side / true_box.side,
        )
    pairs = [(out[subject, "neutral"], out[subject, "smile"]) for subject in sorted({subject for subject, _ in out})]
    return np.array(
        [(np.linalg.norm(n[0] - s[0]), abs(np.log(n[1] / s[1])), (n[2] + s[2]) / 2) for n, s in pairs]
    ).mean(0)


@needs_london
def test_haar_crops_are_steady_and_as_tight_as_those_on_landmarks():
    shift, scale, tightness = london("haar")
    assert shift < 0.6 and scale < 0.04 and 0.95 < tightness < 1.05


@needs_london
@needs("landmarks", "ai_edge_litert")
def test_mesh_crops_are_steadier():
    shift, scale, tightness = london("mesh", face_mesh.load_mesh(MODEL))
    assert shift < 0.25 and scale < 0.015 and 0.97 < tightness < 1.03


@needs_london
def test_a_small_face_and_one_at_the_edge_of_a_large_photograph_are_found():
    face = Image.open(LONDON / "images" / "002_neutral.jpg")
    photograph = Image.new("RGB", (3000, 2000), (120, 140, 120))
    photograph.paste(face.resize((300, 300)), (2650, 100))
    box = face_crop.locate_face(photograph, "haar")
    assert box is not None and 2690 < box.left < 2760 and 150 < box.side < 220
