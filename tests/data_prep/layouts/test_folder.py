"""Anybody's photographs: patterns, intensities, boxes and points by CSV; and actions of what is no face."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from prep_helpers import tree

from data_prep.__main__ import main
from data_prep.layouts import folder
from data_prep.layouts.scan import list_images
from facedisent_jax.data.labels import label_vector
from facedisent_jax.data.reading import read_info, read_split
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError

LONDON = r"images/(?P<subject>\d+)_(?P<expression>\w+)\.jpg"
CLIPS = r"(?P<subject>s\d+)/(?P<expression>\w+)/(?P<sequence>take\d+)/img_(?P<frame>\d+)\.jpg"


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def by_key(scan) -> dict:
    return {source.key: source for source in scan.sources}


def test_the_named_groups_become_the_record_and_the_neutral_word_intensity_0(tmp_path):
    raw = tree(tmp_path, "images/002_neutral.jpg", "images/002_smile.jpg")
    sources = by_key(folder.scan_folder(raw, LONDON))
    assert [(s.subject, s.expression, s.intensity) for s in sources.values()] == [
        ("002", "neutral", 0.0),
        ("002", "smile", 1.0),
    ]


def test_another_word_for_neutral(tmp_path):
    raw = tree(tmp_path, "images/2_calm.jpg", "images/2_smile.jpg")
    sources = by_key(folder.scan_folder(raw, LONDON, neutral="calm"))
    assert (sources["images/2_calm.jpg"].expression, sources["images/2_calm.jpg"].intensity) == ("neutral", 0.0)
    assert any("by --neutral" in note for note in folder.scan_folder(raw, LONDON).notes)


def test_pictures_that_do_not_match_stay_unlabelled_and_other_files_are_counted(tmp_path):
    raw = tree(tmp_path, "images/002_smile.jpg", "holiday/party.PNG", "people.csv", "notes.txt", "faces.tem")
    scan = folder.scan_folder(raw, LONDON)
    party = by_key(scan)["holiday/party.PNG"]
    assert (party.subject, party.expression) == ("", "") and math.isnan(party.intensity)
    assert scan.left_out == {"files that are not images by their suffix": 3}
    assert any("does not match 1 of 2 images (such as holiday/party.PNG)" in note for note in scan.notes)
    assert all(not s.subject for s in folder.scan_folder(raw).sources)


def test_one_sequence_is_one_crop_looked_for_in_its_lowest_frame(tmp_path):
    names = [f"s{subject}/{expression}/take00{take}/img_{frame}.jpg" for subject in (1, 2)
             for expression in ("anger", "happiness") for take in (0, 1) for frame in (9, 10, 100)]  # fmt: skip
    scan = folder.scan_folder(tree(tmp_path, *names), CLIPS)
    groups: dict[str, list] = {}
    for source in scan.sources:
        groups.setdefault(source.crop_group, []).append(source)
    assert len(groups) == 8, "a take of anger and a take of the same name of happiness are two"
    assert all([s.frame for s in group] == [9, 10, 100] for group in groups.values())


def test_a_sequence_with_a_neutral_picture_is_looked_at_there_first(tmp_path):
    raw = tree(tmp_path, *(f"s1_day1_{frame}_{expression}.jpg" for frame, expression in ((1, "smile"), (2, "neutral"))))
    scan = folder.scan_folder(raw, r"(?P<subject>s\d+)_(?P<sequence>day\d)_(?P<frame>\d+)_(?P<expression>\w+)\.jpg")
    assert [s.expression for s in scan.sources] == ["neutral", "smile"]
    assert len({s.crop_group for s in scan.sources}) == 1
    assert [s.intensity for s in scan.sources] == [0.0, 1.0]


def test_pictures_without_a_sequence_are_cropped_one_by_one(tmp_path):
    scan = folder.scan_folder(tree(tmp_path, "images/1_neutral.jpg", "images/1_smile.jpg"), LONDON)
    assert len({s.crop_group for s in scan.sources}) == 2


def test_frames_of_a_clip_are_not_called_full_smiles_without_being_told(tmp_path):
    raw = tree(tmp_path / "raw", *(f"s1/happiness/take000/img_{frame:04}.jpg" for frame in range(3)))
    scan = folder.scan_folder(raw, CLIPS)
    assert all(math.isnan(s.intensity) for s in scan.sources)
    assert any("3 frames of clips have no intensity" in note for note in scan.notes)
    csv = table(tmp_path / "i.csv", "path,intensity\n" + "".join(f"{s.key},{s.frame / 2}\n" for s in scan.sources))
    labelled_scan = folder.scan_folder(raw, CLIPS, intensities=csv)
    assert [s.intensity for s in labelled_scan.sources] == [0.0, 0.5, 1.0] and not labelled_scan.notes


def test_intensity_as_a_group_of_the_pattern(tmp_path):
    raw = tree(tmp_path, "s1/smile_0.4.jpg", "s1/smile_1.0.jpg")
    scan = folder.scan_folder(raw, r"(?P<subject>s\d)/(?P<expression>\w+)_(?P<intensity>[\d.]+)\.jpg")
    assert sorted(s.intensity for s in scan.sources) == [0.4, 1.0]
    with pytest.raises(UserError, match=r"s2/smile_40.jpg: .* must match a number from 0 .* got '40'"):
        tree(tmp_path, "s2/smile_40.jpg")
        folder.scan_folder(raw, r"(?P<subject>s\d)/(?P<expression>\w+)_(?P<intensity>[\d.]+)\.jpg")


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (r"(?P<subject>\d+", r"--pattern must be a regular expression, got .*: missing \)"),
        (r"(?P<subjct>\d+)", r"got 'subjct'. Did you mean subject\?"),
        (r"(?P<hairdo>\d+)", r"must be among subject, expression.*got 'hairdo'\."),
        (r"\d+_\w+", r"must have a named group .* got '"),
    ],
)
def test_a_faulty_pattern_gets_one_sentence(tmp_path, pattern, sentence):
    with pytest.raises(UserError, match=sentence):
        folder.scan_folder(tree(tmp_path, "1_smile.jpg"), pattern)


def test_a_pattern_that_matches_nothing_is_refused_and_one_that_misses_some_is_noted(tmp_path):
    raw = tree(tmp_path, "anna_smile.jpg", "group.jpg")
    with pytest.raises(UserError, match="must match some of the 2 images .such as anna_smile.jpg.,"):
        folder.scan_folder(raw, r"(?P<subject>\d+)_(?P<expression>\w+)\.jpg")
    (note,) = folder.scan_folder(raw, r"(?P<subject>[a-z]+)_(?P<expression>\w+)\.jpg").notes[:1]
    assert "does not match 1 of 2 images (such as group.jpg)" in note


def test_a_frame_that_is_no_number_names_the_file(tmp_path):
    with pytest.raises(UserError, match="s1/last.jpg: the group frame of --pattern must match digits, got 'last'"):
        folder.scan_folder(tree(tmp_path, "s1/last.jpg"), r"(?P<subject>s\d)/(?P<frame>\w+)\.jpg")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "path,intensity\nimages/1_smile.jpg,1.5\n",
            r"i.csv, line 2: intensity must be from 0 .neutral. to 1, got 1.5",
        ),
        ("path,intensity\nimages/1_smile.jpg,-0.1\n", r"i.csv, line 2: intensity must be .* got -0.1"),
        ("path,intensity\n\nimages/1_smile.jpg,much\n", r"i.csv, line 3: intensity must be a number, got 'much'"),
        ("path,intensity\nimages/1_smile.jpg,nan\n", r"i.csv, line 2: intensity must be a number, got 'nan'"),
        ("path,intensity\nimages/1_smile.jpg\n", r"i.csv, line 2: a line must have 2 columns as line 1 has, got 1"),
        (
            "file,value\na,1\n",
            r"i.csv, line 1: the columns must be path, intensity, got file, value, without 'path'",
        ),
        ("", r"i.csv, line 1: .* got nothing, without 'path'"),
        (
            "path,intensity\nelsewhere/1_smile.jpg,1\n",
            r"must name some of the 1 images .such as images/1_smile",
        ),
        ("path,intensity\nimages/1_smile.jpg,\xff\n", r"must be a CSV file in UTF-8"),
    ],
)
def test_a_faulty_table_is_answered_with_file_line_and_what_was_expected(tmp_path, text, sentence):
    raw = tree(tmp_path / "raw", "images/1_smile.jpg")
    (tmp_path / "i.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=sentence):
        folder.scan_folder(raw, LONDON, intensities=tmp_path / "i.csv")


def test_a_neutral_picture_of_some_intensity_is_a_contradiction(tmp_path):
    raw = tree(tmp_path / "raw", "images/1_neutral.jpg")
    csv = table(tmp_path / "i.csv", "path,intensity\nimages/1_neutral.jpg,0.5\n")
    with pytest.raises(UserError, match="1_neutral.jpg must be 0 because its expression is neutral, got 0.5"):
        folder.scan_folder(raw, LONDON, intensities=csv)


def test_boxes_and_points_place_the_same_crop(tmp_path):
    raw = tree(tmp_path / "raw", "images/1_neutral.jpg", "images/1_smile.jpg")
    boxes = table(tmp_path / "b.csv", "path,left,top,right,bottom\nimages/1_smile.jpg,10,20,140,150\n")
    sources = by_key(folder.scan_folder(raw, LONDON, boxes=boxes))
    assert sources["images/1_smile.jpg"].box == (10, 20, 140, 150) and sources["images/1_neutral.jpg"].box is None
    # eyes 50 px apart: a square of 130, its middle 22.5 px below the eyes
    eyes = "left_eye_x,left_eye_y,right_eye_x,right_eye_y"
    points = table(tmp_path / "p.csv", f"path,{eyes}\n./images/1_smile.jpg,50,62.5,100,62.5\n")
    assert by_key(folder.scan_folder(raw, LONDON, points=points))["images/1_smile.jpg"].box == pytest.approx(
        (10, 20, 140, 150)
    )
    with pytest.raises(UserError, match=r"b.csv, line 2: right must be larger than left"):
        table(boxes, "path,left,top,right,bottom\nimages/1_smile.jpg,10,20,10,150\n")
        folder.scan_folder(raw, LONDON, boxes=boxes)


def test_68_points_named_by_person_and_expression(tmp_path):
    raw = tree(tmp_path / "raw", "images/1_smile.jpg")
    at = [(0.0, 0.0)] * 68
    at[36], at[39], at[42], at[45] = (40, 62.5), (60, 62.5), (90, 62.5), (110, 62.5)
    header = ",".join(f"x{k},y{k}" for k in range(68))
    row = ",".join(f"{x},{y}" for x, y in at)
    points = table(tmp_path / "p.csv", f"person,expression,{header}\n1,smile,{row}\n")
    assert folder.scan_folder(raw, LONDON, points=points).sources[0].box == pytest.approx((10, 20, 140, 150))


def test_links_in_a_circle_broken_links_and_odd_names_do_not_stop_the_search(tmp_path):
    raw = tree(tmp_path, "images/1_smile.jpg", "a b/ünï 'quoted', with comma.jpg")
    (raw / "images" / "again").symlink_to(raw, target_is_directory=True)
    (raw / "images" / "2_smile.jpg").symlink_to(raw / "gone.jpg")
    sources = by_key(folder.scan_folder(raw, LONDON))
    assert set(sources) == {"images/1_smile.jpg", "a b/ünï 'quoted', with comma.jpg", "images/2_smile.jpg"}


def test_hidden_folders_and_those_of_systems_are_passed_over_and_counted_like_hidden_files(tmp_path):
    hidden = (".Trash-1000/files", ".AppleDouble", ".ipynb_checkpoints", "@eaDir/1_smile.jpg", "__MACOSX", "lost+found")
    raw = tree(tmp_path, "images/1_smile.jpg", "images/.2_smile.jpg", *(f"images/{name}/a.jpg" for name in hidden))
    scan = folder.scan_folder(raw, LONDON)
    assert list(by_key(scan)) == ["images/1_smile.jpg"]
    assert scan.left_out == {"hidden files": 1, "files in hidden folders": len(hidden)}
    # the folder that is given may lie in a hidden one
    assert len(folder.scan_folder(raw / "images" / ".AppleDouble").sources) == 1


def test_heic_and_avif_are_images_and_another_image_of_the_same_name_comes_first(tmp_path):
    raw = tree(tmp_path, "images/1_smile.HEIC", "images/1_smile.avif", "images/1_smile.jpg")
    assert [key for _, key in list_images(raw)[0]] == [
        "images/1_smile.avif",
        "images/1_smile.jpg",
        "images/1_smile.HEIC",
    ]


def test_a_path_or_a_name_in_another_unicode_form_is_found_in_a_table(tmp_path):
    raw = tree(tmp_path / "raw", "images/Jose\u0301_smile.jpg", "images/Zoe\u0308_smile.jpg")
    pattern = r"images/(?P<subject>\w+)_(?P<expression>\w+)\.jpg"  # \w is no combining accent
    for text in ("path,intensity\nimages/José_smile.jpg,0.3\n", "subject,expression,intensity\nJosé ,Smile,0.3\n"):
        scan = folder.scan_folder(raw, pattern, intensities=table(tmp_path / "i.csv", text))
        assert {s.subject: s.intensity for s in scan.sources}["José"] == 0.3
        assert [remark.key for remark in scan.remarks] == ["images/Zoe\u0308_smile.jpg"]


@pytest.mark.parametrize(("values", "advice"), [
    ("0,1,3,5", "run from 0 to 5: divide them by the value of a full expression, such as 5."),
    ("0,12.5,40,97", "run from 0 to 97: divide them by the value of a full expression, such as 100."),
    ("0,0.5,1.8", "run from 0 to 1.8: divide them by the value of a full expression, such as 2."),
    ("-1,0.5,1", "run from -1 to 1: shift and scale them so that a neutral face has 0 and a full expression 1."),
])  # fmt: skip
def test_intensities_on_another_scale_are_refused_with_the_range_and_what_to_do(tmp_path, values, advice):
    names = [f"images/{k}_smile.jpg" for k in range(len(values.split(",")))]
    rows = "".join(f"{name},{value}\n" for name, value in zip(names, values.split(","), strict=True))
    csv = table(tmp_path / "i.csv", "path,intensity\n" + rows)
    with pytest.raises(UserError, match=r"i\.csv, line \d: intensity must be from 0 .neutral. to 1, got") as error:
        folder.scan_folder(tree(tmp_path / "raw", *names), LONDON, intensities=csv)
    assert str(error.value).endswith(f"The intensities of this file {advice}")


def test_one_intensity_beyond_the_scale_is_a_typo_of_its_line(tmp_path):
    names = [f"images/{k}_smile.jpg" for k in range(20)]
    rows = "".join(f"{name},{1.5 if k == 3 else 0.5}\n" for k, name in enumerate(names))
    csv = table(tmp_path / "i.csv", "path,intensity\n" + rows)
    with pytest.raises(UserError, match=r"i\.csv, line 5: intensity must be .* got 1\.5\.$"):
        folder.scan_folder(tree(tmp_path / "raw", *names), LONDON, intensities=csv)


def test_pictures_without_a_line_have_no_intensity_and_they_and_lines_without_a_picture_are_named(tmp_path):
    names = [f"images/{subject}_{what}.jpg" for subject in ("002", "010") for what in ("neutral", "smile")]
    raw = tree(tmp_path / "raw", *names)
    rows = "2,neutral,0\n2,smile,0.6\n010,neutral,0\n010,smile,0.8\n"
    csv = table(tmp_path / "i.csv", "subject,expression,intensity\n" + rows)
    scan = folder.scan_folder(raw, LONDON, intensities=csv)
    intensities = {key: source.intensity for key, source in by_key(scan).items()}
    assert math.isnan(intensities.pop("images/002_smile.jpg"))
    assert intensities == {"images/002_neutral.jpg": 0, "images/010_neutral.jpg": 0, "images/010_smile.jpg": 0.8}
    assert scan.notes == [
        f"{csv} does not name 1 of 4 images (such as images/002_smile.jpg). Their intensity is unknown, and they "
        "train only the reconstruction.",
        f"2 of 4 lines of {csv} name no image (such as 2 neutral).",
    ]
    assert scan.remarks == [
        ("images/002_smile.jpg", f"unknown intensity: {csv} does not name it"),
        (str(csv), "line that names no image: 2 neutral"),
        (str(csv), "line that names no image: 2 smile"),
    ]


def test_expressions_that_differ_only_by_case_are_one_and_neutral_is_never_an_action(tmp_path):
    names = ("1_neutral", "1_smile", "2_Neutral", "2_Smile", "3_NEUTRAL", "3_Fear")
    raw = tree(tmp_path, *(f"images/{name}.jpg" for name in names))
    scan = folder.scan_folder(raw, LONDON)
    labels = {key[7:-4]: (source.expression, source.intensity) for key, source in by_key(scan).items()}
    assert labels == {
        **dict.fromkeys(("1_neutral", "2_Neutral", "3_NEUTRAL"), ("neutral", 0.0)),
        **dict.fromkeys(("1_smile", "2_Smile"), ("smile", 1.0)),
        "3_Fear": ("Fear", 1.0),
    }
    assert scan.notes == [
        "Expressions that differ only by case are one: NEUTRAL is read as neutral, Neutral is read as neutral, "
        "Smile is read as smile."
    ]
    # what --neutral says needs no note
    notes = folder.scan_folder(raw, r"(?P<subject>2)_(?P<expression>Neutral)", neutral="Neutral").notes
    assert not any("case" in note for note in notes)


def test_an_optional_expression_may_mean_neutral_by_its_absence(tmp_path):
    raw = tree(tmp_path, "images/1.jpg", "images/1_smile.jpg", "party.jpg")
    scan = folder.scan_folder(raw, r"images/(?P<subject>\d+)(_(?P<expression>\w+))?\.jpg", neutral="")
    assert [s.expression for s in scan.sources] == ["neutral", "smile", ""]


FRAMES = r"(?P<subject>s\d)/(?P<sequence>take\d)/(?P<frame>\d+)\.png"


def test_without_any_expression_prep_says_that_labels_are_not_trained_and_an_option_names_it(tmp_path):
    raw = tree(tmp_path / "raw", *(f"s{k}/take0/{frame}.png" for k in (1, 2) for frame in range(3)), "party.png")
    keys = [f"s{k}/take0/{frame}.png" for k in (1, 2) for frame in range(3)]
    csv = table(tmp_path / "i.csv", "path,intensity\n" + "".join(f"{key},{int(key[9]) / 2}\n" for key in keys))
    scan = folder.scan_folder(raw, FRAMES, intensities=csv)
    assert any("No image has an expression: all train only the reconstruction." in note for note in scan.notes)
    image_by_key = by_key(folder.scan_folder(raw, FRAMES, intensities=csv, expression="surprise"))
    assert [(image_by_key[key].expression, image_by_key[key].intensity) for key in keys] == [
        ("surprise", k / 2) for k in (0, 1, 2)
    ] * 2
    assert image_by_key["party.png"].expression == ""
    for pattern in (LONDON, None):
        with pytest.raises(UserError, match="--expression needs a --pattern without the group expression"):
            folder.scan_folder(raw, pattern, expression="surprise")


WALK = r"(?P<subject>w\d)/(?P<expression>\w+)/(?P<sequence>walk\d)/(?P<frame>\d+)\.png"
STEPS = np.arange(12)


def draw_walker(build: float, colour: tuple[int, int, int], phase: float) -> Image.Image:
    """A figure of lines in mid-stride: its legs are together at phase 0 and farthest apart at 1."""
    picture = Image.new("RGB", (160, 120), (230, 230, 225))
    draw = ImageDraw.Draw(picture)
    hip, neck, spread = (80, 66), (80, 66 - 30 * build), 22 * build * phase
    draw.ellipse((80 - 8 * build, neck[1] - 16 * build, 80 + 8 * build, neck[1]), fill=colour)
    draw.line((neck, hip), fill=colour, width=6)
    for side in (-1, 1):
        draw.line((hip, (80 + side * spread, 66 + 40 * build)), fill=colour, width=5)
        draw.line((neck, (80 - 0.7 * side * spread, 66 - 4 * build)), fill=colour, width=4)
    return picture


def walks(raw: Path) -> Path:
    """Four walkers, two walks of 12 frames each; the intensities of one stride are its phase, there and back."""
    builds = ((1.0, (40, 60, 150)), (0.8, (160, 50, 40)), (1.15, (30, 110, 60)), (0.9, (90, 40, 120)))
    lines = ["path,intensity"]
    for subject, (build, colour) in enumerate(builds):
        for walk in range(2):
            folder = raw / f"w{subject}" / "gait" / f"walk{walk}"
            folder.mkdir(parents=True)
            for step in STEPS:
                phase = round(float(abs((step + 3 * walk) % 8 - 4)) / 4, 2)
                draw_walker(build, colour, phase).save(folder / f"{step:02}.png")
                lines.append(f"w{subject}/gait/walk{walk}/{step:02}.png,{phase}")
    return table(raw / "phase.csv", "\n".join(lines) + "\n")


def test_a_periodic_action_of_something_that_is_no_face_becomes_records_and_triplets(tmp_path):
    phases = walks(tmp_path / "raw")
    options = ["--no-face", "--pattern", WALK, "--intensities", str(phases), "--workers", "1"]
    main(["folder", str(tmp_path / "raw"), str(tmp_path / "out"), *options])
    info = read_info(tmp_path / "out")
    assert info["found_by"] == {"none": 96} and info["detector"] == "none" and not info["rejected"]
    faces = Faces.join([read_split(tmp_path / "out", split) for split in ("train", "validation", "test")])
    assert set(faces.expression) == {"gait"} and len(faces) == 96
    middle = np.asarray(Image.open(tmp_path / "raw/w0/gait/walk0/00.png").crop((20, 0, 140, 120)).resize((64, 64)))
    (row,) = np.flatnonzero((faces.subject == "w0") & (faces.sequence == "walk0") & (faces.frame == 0))
    assert np.abs(faces.image[row].astype(int) - middle).mean() < 3, "the middle square, and no face was looked for"
    assert faces.intensity[row] == 1
    triplets = Triplets(faces)
    index = triplets.index(0, 0, 960)
    a, b, c = index.a, index.b, index.c
    assert index.has_b.all() and index.has_c.all() and not triplets.describe_missing_partners()
    assert (faces.subject[a] == faces.subject[b]).all() and (faces.sequence[a] == faces.sequence[b]).all()
    assert (faces.intensity[a] != faces.intensity[b]).all()
    assert (faces.subject[a] != faces.subject[c]).all() and (faces.intensity[a] == faces.intensity[c]).all()
    label = triplets.gather(index).label[0]
    gait = label_vector("gait")
    assert set(gait) == {0, 1} and (label_vector("smile") != gait).any()
    assert label == pytest.approx(faces.intensity[a].round(1)[:, None] * gait)


def test_no_face_with_boxes_crops_there_and_with_a_detector_is_a_contradiction(tmp_path):
    walks(tmp_path / "raw")
    boxes = table(tmp_path / "b.csv", "path,left,top,right,bottom\nw0/gait/walk0/00.png,50,20,110,80\n")
    options = ["--no-face", "--pattern", WALK, "--workers", "1"]
    main(["folder", str(tmp_path / "raw"), str(tmp_path / "out"), *options, "--boxes", str(boxes)])
    info = read_info(tmp_path / "out")
    assert info["found_by"] == {"given": 12} and info["rejected"] == {"no box given": 84}
    with pytest.raises(SystemExit, match="--no-face and --detector haar cannot go together"):
        main(["folder", str(tmp_path / "raw"), str(tmp_path / "other"), *options, "--detector", "haar"])
