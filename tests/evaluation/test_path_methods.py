"""Ways from neutral to apex, and the frames that are references for them."""

import numpy as np
import pytest
from tiny_run import person
from tiny_warp import warp_model

from facedisent_jax.data.record import Faces
from facedisent_jax.evaluation import clips, path_methods
from facedisent_jax.models import Codes


@pytest.mark.slow
def test_methods_with_source_images_pass_through_the_ends_of_the_clip():
    model, faces = warp_model(), Faces.of(person(5, [k / 10 for k in range(11)]))
    (onset,) = clips.find_clips(faces).clips
    clip = path_methods.encode_clip(model, faces, onset)
    codes, ends = clip.codes, np.array([0.0, 1.0])
    noise = np.random.default_rng(0).random((8, 64), np.float32)
    methods = path_methods.interpolation_methods(
        model, clip, path_methods.TrainingStatistics(None, None, {}, [], noise)
    )
    assert {"expression", "whole", "own_smile", *path_methods.ABLATIONS} <= set(methods)
    assert methods["expression"](ends) == pytest.approx(clip.real[[0, -1]], abs=1e-5)
    assert methods["own_smile"](ends)[0] == pytest.approx(clip.real[0], abs=1e-5)
    apex_codes = Codes(codes.identity[-1:], codes.expression[-1:])
    for name, target in (("own_codes", apex_codes), ("own_smile", apex_codes._replace(identity=codes.identity[:1]))):
        assert methods[name](ends)[1] == pytest.approx(model.decode(target, clip.real[:1])[0], abs=1e-4)

    references = path_methods.per_frame_references(clip, path_methods.TrainingStatistics(None, None, {}, []))
    source = clip.real[path_methods.distant_frames(clip.onset.intensity)[2]][None]
    decoded = model.decode(Codes(codes.identity[2:3], codes.expression[2:3]), source)[0]
    assert references["from_another"][2] == pytest.approx(decoded, abs=1e-4)


def test_a_distant_frame_is_far_away_in_intensity_or_the_farther_end():
    full_rise, faint_rise = np.linspace(0, 1, 21), np.linspace(0, 0.4, 9)
    rows = path_methods.distant_frames(full_rise)
    assert (np.abs(full_rise[rows] - full_rise) >= path_methods.MIN_INTENSITY_DISTANCE).all() and len(set(rows)) > 5
    rows = path_methods.distant_frames(faint_rise)
    assert rows[3] == 8 and rows[5] == 0 and faint_rise[rows[0]] >= path_methods.MIN_INTENSITY_DISTANCE
