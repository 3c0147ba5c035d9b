"""Pictures of two people: which face is taken, that it is the same one on all pictures of a subject, and the remark."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from extras import needs
from PIL import Image
from tiny_run import SHARED

from data_prep.__main__ import main
from data_prep.cropping import crop, face_crop, face_mesh, jobs
from data_prep.cropping.crop import FaceLocation, UnclearGroup
from data_prep.cropping.face_crop import Box
from data_prep.layouts.scan import Source
from data_prep.synthetic.faces import draw_levels, random_identity
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Faces

MODEL = SHARED / "models" / "face_landmarker.task"
SUBJECT, FRIEND, STRANGER = 0, 1, 2
LEFT, RIGHT = (40, 50), (340, 50)
PATTERN = r"(?P<subject>\w+)_(?P<expression>neutral|smile)"


def photo(*people: tuple[int, tuple[int, int]], sides: Sequence[int] = (200, 200), level: float = 0.0) -> Image.Image:
    """A picture of 600x300 pixels: drawn faces, each at a place (left, top)."""
    image = Image.new("RGB", (600, 300), (120, 140, 120))
    for (person, place), side in zip(people, sides, strict=False):
        image.paste(draw_face(person, level).resize((side, side), Image.Resampling.BICUBIC), place)
    return image


def draw_face(person: int, level: float = 0.0) -> Image.Image:
    return Image.fromarray(draw_levels(random_identity(0, person), [level])[0])


def nearest_person(image: np.ndarray) -> int:
    """The person whose drawn face is most like a crop."""
    errors = [np.abs(image.astype(float) - np.asarray(draw_face(person))).mean() for person in range(3)]
    return int(np.argmin(errors))


def prepare(folder: Path, photos: dict[str, Image.Image], *options: str) -> tuple[dict[tuple[str, str], int], dict]:
    """(subject, expression) -> the person whose face was cropped; and file -> remark."""
    (folder / "raw").mkdir()
    for name, image in photos.items():
        image.save(folder / "raw" / f"{name}.png")
    main(["folder", str(folder / "raw"), str(folder / "out"), "--pattern", PATTERN, "--workers", "1", *options])
    faces = Faces.join([read_split(folder / "out", split) for split in ("train", "validation", "test")])
    people = {
        (str(faces.subject[k]), str(faces.expression[k])): nearest_person(faces.image[k]) for k in range(len(faces))
    }
    assert read_info(folder / "out")["pictures"] == len(photos), "each picture is used once"
    remarks = folder / "out" / "remarks.csv"
    if not remarks.exists():
        return people, {}
    with remarks.open(newline="", encoding="utf-8") as file:
        return people, {row["file"]: row["remark"] for row in csv.DictReader(file)}


def test_the_face_at_the_place_of_the_subject_on_other_pictures_is_taken_and_the_picture_is_listed(tmp_path):
    photos = {}
    for subject, place, other_place in (("anna", LEFT, RIGHT), ("ben", RIGHT, LEFT)):
        photos[f"{subject}_neutral"] = photo((SUBJECT, place))
        photos[f"{subject}_smile"] = photo((SUBJECT, place), (FRIEND, other_place))
    people, remarks = prepare(tmp_path, photos)
    assert set(people.values()) == {SUBJECT} and len(people) == 4
    assert set(remarks) == {"anna_smile.png", "ben_smile.png"}
    assert all(remark.startswith("several faces: the one around pixel (") for remark in remarks.values())


def test_if_all_pictures_of_a_subject_show_two_people_they_show_the_same_one_of_them(tmp_path):
    photos = {
        "anna_neutral": photo((SUBJECT, LEFT), (FRIEND, RIGHT), sides=(215, 150)),
        "anna_smile": photo((SUBJECT, LEFT), (FRIEND, RIGHT), sides=(150, 215)),
    }
    clearest = [face_crop.locate_face(image, "haar") for image in photos.values()]
    assert [box is not None and box.left < 300 for box in clearest] == [True, False], "one alone would mix them"
    people, remarks = prepare(tmp_path, photos)
    assert people == {("anna", "neutral"): SUBJECT, ("anna", "smile"): SUBJECT} and len(remarks) == 2


def unclear(subject: str, key: str, *boxes: Box) -> UnclearGroup:
    source = Source(Path(key), key, key, subject)
    return UnclearGroup([source], key, [FaceLocation(box, (600, 300), "haar") for box in boxes])


def test_place_and_size_decide_and_without_a_subject_the_clearest_face_is_taken():
    left, right, large = Box(50, 50, 250, 250), Box(350, 50, 550, 250), Box(300, 0, 600, 300)
    place = FaceLocation(Box(375, 75, 525, 225), (600, 300), "haar").place
    chosen = jobs.choose_faces(
        [unclear("anna", "1", left, large, right), unclear("ben", "2", left, right), unclear("", "3", left, right)],
        [("anna", place), ("anna", place), ("", place)],
    )
    assert [face.box for _, face, _ in chosen] == [right, left, left]
    # the same picture at half the size has its faces at the same places
    (half,) = jobs.choose_faces([unclear("anna", "1", left, right)], [("anna", place)])
    small = FaceLocation(Box(175, 25, 275, 125), (300, 150), "haar")
    assert small.place == half[1].place


def test_people_in_the_background_are_not_looked_at(tmp_path):
    image = photo((SUBJECT, LEFT))
    image.paste(draw_face(FRIEND).resize((80, 80)), (400, 100))
    assert len(face_crop.locate_faces(image, "haar")) == 1
    _, remarks = prepare(tmp_path, {"anna_neutral": image})
    assert not remarks


def test_two_small_faces_of_one_size_are_both_found():
    image = Image.new("RGB", (1000, 500), (120, 140, 120))
    for person, side, place in ((SUBJECT, 230, (100, 100)), (FRIEND, 190, (700, 100))):
        image.paste(draw_face(person).resize((side, side)), place)
    # in the image reduced to 160 pixels, where a face is looked for first, the second one is below the usual minimum
    assert len(face_crop.locate_faces(image, "haar")) == 2


def test_boxes_around_one_face_are_one_face():
    face, inner, second_face = Box(0, 0, 100, 100), Box(20, 20, 90, 90), Box(110, 0, 190, 80)
    assert face_crop.faces_of_one_size([face, inner, second_face, Box(200, 0, 240, 40)]) == [face, second_face]
    assert face_crop.faces_of_one_size([]) == []


def test_a_long_sequence_of_two_people_is_cropped_whole_at_one_place(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "PART_IMAGES", 3)
    for number in range(8):
        photo((SUBJECT, LEFT), (FRIEND, RIGHT), level=number / 10).save(tmp_path / f"{number}.png")
    photo((FRIEND, RIGHT)).save(tmp_path / "alone.png")
    sources = [Source(tmp_path / f"{k}.png", f"{k}", "clip", "anna") for k in range(8)]
    sources.append(Source(tmp_path / "alone.png", "alone", "alone", "anna"))
    parts = list(jobs.crop_all(sources, crop.Cropping(), 1))
    people = {
        source.key: nearest_person(image)
        for part in parts
        for source, image in zip(part.sources, part.images, strict=True)
    }
    assert people == dict.fromkeys([*"01234567", "alone"], FRIEND)
    assert [entry.key for part in parts for entry in part.remarks] == ["0"]
    assert not any(part.rejected for part in parts)


@needs("landmarks", "ai_edge_litert")
@pytest.mark.skipif(not MODEL.is_file(), reason="the face mesh model is not on this machine")
def test_the_mesh_finds_both_people_too():
    mesh = face_mesh.load_mesh(MODEL)
    boxes = face_crop.locate_faces(photo((SUBJECT, LEFT), (FRIEND, RIGHT)), "mesh", mesh)
    centres = sorted((box.left + box.right) / 2 for box in boxes)
    assert centres == pytest.approx([140, 440], abs=15)
    assert len(face_crop.locate_faces(photo((SUBJECT, LEFT)), "mesh", mesh)) == 1
