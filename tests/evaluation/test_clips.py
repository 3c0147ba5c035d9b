"""Onsets: what is cut out of a take, and why a take has none."""

import numpy as np
import pytest
from tiny_run import person

from facedisent_jax.data.record import Faces
from facedisent_jax.evaluation import clips

RISE = np.linspace(0, 1, 11)


def test_an_onset_runs_from_the_last_neutral_frame_to_the_first_at_the_apex():
    take = np.array([0, 0, 0.01, 0.02, *RISE[1:-1], 0.96, 1, 1, 0.97, 0.5, 0.1, 0, 0])
    #                0  1  2     3     4 ... 12     13
    assert clips.onset(take) == slice(3, 14)
    relative = 0.2 + 0.6 * take  # the limits are of the take's own range, not of 0 to 1
    assert clips.onset(relative) == slice(3, 14)


def test_a_dip_to_neutral_begins_the_onset_anew():
    assert clips.onset(np.array([0, 0.3, 0.4, 0.0, *RISE[1:]])) == slice(3, 14)


@pytest.mark.parametrize(
    ("intensity", "reason"),
    [
        (np.linspace(0, 1, 7), "fewer than 8 onset frames"),
        (np.linspace(1, 0, 20), "does not begin at neutral"),
        (0.5 + 0.05 * RISE, "changes by less than 0.1"),
        (np.array([0, 1]), "fewer than 8 onset frames"),
    ],
)
def test_what_is_no_onset_has_a_reason(intensity, reason):
    assert reason in clips.onset(intensity)
    assert isinstance(clips.onset(np.linspace(0, 1, 8)), slice)  # eight are enough


def test_unknown_intensities_and_doubled_frames_are_reasons_too():
    hole = np.where(RISE == 0.5, np.nan, RISE)
    assert clips.onset_of_take(hole, np.arange(11)) == "frames of unknown intensity"
    assert clips.onset_of_take(RISE, np.array([*range(10), 9])) == "frames with the same number"


def test_takes_are_told_apart_and_sorted_by_frame_and_stills_count_where_they_rise():
    falling_take = [r._replace(frame=10 - k) for k, r in enumerate(person(1, RISE[::-1], sequence="take001"))]
    faces = Faces.of(
        [
            *person(0, RISE),  # stills, in no sequence
            *falling_take,  # listed from the apex down, numbered upwards
            *person(1, (0, 1), sequence="take002"),
            *person(2, (0.0,)),  # one picture is no take
            *[r._replace(intensity=float("nan")) for r in person(3, RISE)],
            *[r._replace(subject="") for r in person(4, RISE)],
        ]
    )
    result = clips.find_clips(faces)
    assert [(clip.subject, clip.sequence, clip.action) for clip in result.clips] == [
        ("p000", "", "smile"),
        ("p001", "take001", "smile"),
    ]
    first_clip, second_clip = result.clips
    assert first_clip.rows.tolist() == list(range(11)) and second_clip.rows.tolist() == list(range(21, 10, -1))
    assert first_clip.alpha == pytest.approx(RISE) and second_clip.alpha == pytest.approx(RISE)
    assert result.rejected == [
        ("p001 take002 smile", "fewer than 8 onset frames"),
        ("p003", "no known intensity"),
    ]


def test_several_actions_of_one_take_share_its_neutral_frames():
    smile_records, surprise_records = person(0, RISE), person(0, RISE[1:])
    surprise_records = [r._replace(expression="surprise", frame=20 + k) for k, r in enumerate(surprise_records)]
    result = clips.find_clips(Faces.of([*smile_records, *surprise_records]))
    assert [clip.action for clip in result.clips] == ["smile", "surprise"]
    assert [clip.rows[0] for clip in result.clips] == [0, 0] and result.clips[1].rows[-1] == 20


def test_alpha_is_between_the_ends_of_the_clip_whatever_its_peak():
    (clip,) = clips.find_clips(Faces.of(person(0, 0.6 * RISE))).clips
    assert clip.alpha == pytest.approx(RISE) and clip.intensity[-1] == pytest.approx(0.6)


def test_of_many_clips_everybody_comes_once_before_anybody_twice():
    faces = Faces.of([r for k in range(3) for take in ("a", "b") for r in person(k, RISE, sequence=take)])
    all_clips = clips.find_clips(faces).clips
    assert len(all_clips) == 6 and clips.subsample(all_clips, 0) == all_clips
    assert sorted(clip.subject for clip in clips.subsample(all_clips, 3)) == ["p000", "p001", "p002"]
    assert len({clip.subject for clip in clips.subsample(all_clips, 4)}) == 3
