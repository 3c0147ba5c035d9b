"""What makes a triplet: b is a's subject in the same take at another intensity, c another subject at a's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import person
from tiny_triplets import face, pairs

from facedisent_jax.data.labels import intensity_step, label_vector
from facedisent_jax.data.record import Faces
from facedisent_jax.data.triplets import TripletIndex, Triplets


def draw_indices(records, steps=40, batch=8, seed=0):
    triplets = Triplets(Faces.of(records))
    index = [triplets.index(seed, k, batch) for k in range(steps)]
    return [np.concatenate(column) for column in zip(*index, strict=True)]


def test_b_is_the_same_subject_at_another_intensity_and_c_another_subject_at_the_same():
    records = pairs()
    a, b, c, has_b, has_c, *_ = draw_indices(records)
    assert has_b.all() and has_c.all()
    for i, j, k in zip(a, b, c, strict=True):
        assert records[i].subject == records[j].subject and records[i].intensity != records[j].intensity
        assert records[i].subject != records[k].subject and records[i].intensity == records[k].intensity


def test_every_candidate_is_drawn_and_each_image_is_the_anchor_once_an_epoch():
    records = pairs(4)
    a, _, c, *_ = draw_indices(records, steps=200)
    assert {(i, k) for i, k in zip(a, c, strict=True)} == {
        (i, k)
        for i in range(8)
        for k in range(8)
        if records[i].subject != records[k].subject and records[i].intensity == records[k].intensity
    }
    assert sorted(a[:8]) == list(range(8)) == sorted(a[8:16])
    assert list(a[:8]) != list(a[8:16])  # in a new order each epoch


def test_a_step_is_a_pure_function_of_seed_and_step():
    triplets, equal_triplets = Triplets(Faces.of(pairs())), Triplets(Faces.of(pairs()))
    for k in (7, 0, 123):
        for x, y in zip(triplets.batch(3, k, 5), equal_triplets.batch(3, k, 5), strict=True):
            np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(triplets.index(3, 0, 5), triplets.index(4, 0, 5), strict=True))


def test_b_comes_from_the_same_take_then_the_same_condition_then_the_subject():
    records = [
        face("s", "neutral", 0, "take0", "day"),
        face("s", "smile", 1, "take0", "day"),
        face("s", "smile", 1, "take1", "day"),  # the take has nothing else: another take by day
        face("s", "smile", 1, "take2", "night"),  # no neutral at night: any of the subject
        face("s", "smile", 0.5, "take0", "night"),
    ]
    a, b, *_ = draw_indices(records, steps=200)
    partners = {i: set(b[a == i]) for i in range(5)}
    assert partners == {0: {1}, 1: {0}, 2: {0}, 3: {4}, 4: {2, 3} - {2}}


def test_neutral_is_intensity_zero_of_any_expression():
    records = [face("s0", "smile", 0.0), face("s1", "neutral", 0.0), face("s2", "surprise", 0.04)]
    a, _, c, _, has_c, *_ = draw_indices(records)
    assert has_c.all() and {(i, k) for i, k in zip(a, c, strict=True)} == {
        (i, k) for i in range(3) for k in range(3) if i != k
    }


def test_different_expressions_of_equal_intensity_do_not_match():
    *_, has_c = draw_indices([face("s0", "smile", 1.0), face("s1", "surprise", 1.0)])
    assert not has_c.any()


def test_images_without_labels_or_partners_are_used_as_far_as_possible():
    records = pairs(1) + [face(), face("s9", "", float("nan")), face("", "smile", 1.0)]
    triplets = Triplets(Faces.of(records))
    index = triplets.index(0, 0, len(records))
    batch = triplets.gather(index)
    by_row = {int(i): k for k, i in enumerate(index.a)}
    for row, (labelled, has_b, has_c) in enumerate([(1, 1, 0), (1, 1, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0)]):
        k = by_row[row]
        assert (batch.is_labelled[0, k], batch.has_b[k], batch.has_c[k]) == (labelled, has_b, has_c)
        if not has_b:
            assert index.b[k] == row
        assert index.c[k] == row
    assert len(triplets.describe_missing_partners()) == 3
    assert np.isfinite(batch.label).all() and np.isfinite(batch.intensity).all()


def test_a_complete_data_set_has_no_describe_missing_partners():
    assert Triplets(Faces.of(pairs())).describe_missing_partners() == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "s", "t"]), st.sampled_from([None, 0.0, 0.3, 1.0]), st.sampled_from(["", "x"])),
        min_size=1,
        max_size=12,
    )
)
def test_any_data_set_gives_batches_whose_masks_tell_the_truth(rows):
    records = [face(s, "" if y is None else "smile", float("nan") if y is None else y, take) for s, y, take in rows]
    triplets = Triplets(Faces.of(records))
    index = triplets.index(1, 2, 16)
    batch = triplets.gather(index)
    for k in range(16):
        a, b, c = (records[i] for i in (index.a[k], index.b[k], index.c[k]))
        if batch.has_b[k]:
            assert a.subject == b.subject != "" and a.intensity != b.intensity
        if batch.has_c[k]:
            assert "" not in (a.subject, c.subject) and a.subject != c.subject and a.intensity == c.intensity
        assert batch.is_labelled[:, k].tolist() == [record.expression != "" for record in (a, b, c)]
        is_comparable = (a.subject, a.sequence) == (b.subject, b.sequence) and a.subject != ""
        assert batch.order[k] == (np.sign(b.intensity - a.intensity) if is_comparable and batch.has_b[k] else 0)


def onset(subject, frames, expression="smile", **intensities):
    """A take whose frames are numbered 10, 12, ...; intensities: by position, as at2=0.5."""
    nan = float("nan")
    levels = [intensities.get(f"at{k}", nan) for k in range(frames)]
    records = [face(subject, expression, y, "take0")._replace(frame=10 + 2 * k) for k, y in enumerate(levels)]
    return records[::-1]  # as a folder may hold them: in any order


def test_a_take_without_intensities_is_an_onset_in_time_order():
    records = onset("s", 5) + pairs(2)
    frames = [r.frame for r in records]
    a, b, c, has_b, has_c, *_ = draw_indices(records)
    batch = Triplets(Faces.of(records)).gather(TripletIndex(a, b, c, has_b, has_c, a, np.zeros(len(a), bool)))
    is_ranked_only = np.isin(a, (1, 2, 3))  # not the apex (0) and not the neutral frame (4)
    assert has_b[is_ranked_only].all() and not has_c[is_ranked_only].any()
    assert set(b[is_ranked_only].tolist()) == {0, 1, 2, 3, 4} and has_c[a == 0].all() and has_c[a == 4].all()
    of_take = a < 5
    np.testing.assert_array_equal(batch.order[of_take], np.sign(np.array(frames)[b] - np.array(frames)[a])[of_take])
    np.testing.assert_array_equal(batch.is_labelled[0], ~is_ranked_only)
    np.testing.assert_array_equal(batch.label[0][a == 0], np.ones(((a == 0).sum(), 64)))
    assert not batch.label[0][a == 4].any() and (batch.action_label[of_take] == 1).all()


def test_frames_whose_order_is_not_known_are_not_ordered():
    repeated_frame = [r._replace(frame=0) for r in onset("s", 4)]
    for records in (onset("s", 4, at2=0.5), repeated_frame, [r._replace(sequence="") for r in onset("s", 4)]):
        triplets = Triplets(Faces.of(records))
        assert not triplets.gather(triplets.index(0, 0, 16)).order.any()


def test_two_expressions_are_not_ordered_but_neutral_and_either_are():
    records = [face("s", "neutral", 0.0), face("s", "smile", 0.5), face("s", "surprise", 1.0)]
    triplets = Triplets(Faces.of(records))
    a, b = np.array([0, 2, 1]), np.array([1, 0, 2])
    batch = triplets.gather(TripletIndex(a, b, a, np.ones(3, bool), np.zeros(3, bool), a, np.zeros(3, bool)))
    assert batch.order.tolist() == [1, -1, 0]
    np.testing.assert_array_equal(batch.action_label[:2], [np.ones(64), label_vector("surprise")])


def test_the_step_of_the_labels_can_be_chosen():
    records = [face("s", "smile", 0.26), face("t", "smile", 0.31)]
    coarse_triplets, fine_triplets = (Triplets(Faces.of(records), step) for step in (0.1, 0.05))
    rows = np.arange(2)
    np.testing.assert_allclose(coarse_triplets.label(rows)[:, 0], [0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(fine_triplets.label(rows)[:, 0], [0.25, 0.3], rtol=1e-6)
    assert coarse_triplets.index(0, 0, 4).has_c.all() and not fine_triplets.index(0, 0, 4).has_c.any()


def test_label_vectors():
    assert label_vector("smile").tolist() == [1.0] * 64
    surprise, disgust = label_vector("surprise"), label_vector("disgust")
    assert set(np.unique(surprise)) == {0.0, 1.0} and (surprise != disgust).sum() > 16
    np.testing.assert_array_equal(surprise, label_vector("surprise"))
    records = [face("s", "neutral", 0.0), face("s", "smile", 0.26), face("s", "surprise", 0.5)]
    label = Triplets(Faces.of(records)).label(np.arange(3))
    np.testing.assert_allclose(label, [np.zeros(64), np.full(64, 0.3), 0.5 * surprise], atol=1e-7)


def test_intensities_are_rounded_to_steps_of_a_tenth():
    np.testing.assert_array_equal(intensity_step(np.array([0, 0.04, 0.06, 0.95001, 1, np.nan])), [0, 0, 1, 10, 10, -1])


def test_without_a_middle_frame_everything_else_is_the_same():
    records = [face("s", "smile", y, "take") for y in (0.0, 0.3, 0.6, 1.0)]
    middle_batch, pair_batch = (Triplets(Faces.of(records), with_middle=m).batch(0, 0, 8) for m in (True, False))
    assert middle_batch.has_middle.any() and middle_batch.middle.shape == (1, 8, 64, 64, 3)
    assert not pair_batch.has_middle.any() and pair_batch.middle.shape == (0, 8, 64, 64, 3)
    for name in set(middle_batch._fields) - {"middle", "alpha", "has_middle"}:
        np.testing.assert_array_equal(getattr(middle_batch, name), getattr(pair_batch, name))


def test_a_middle_frame_is_of_the_same_take_and_lies_between_in_intensity():
    levels = [y / 5 for y in range(6)]
    takes = Faces.of([r for k in range(4) for r in person(k, levels, sequence=f"t{k}")])
    triplets = Triplets(takes)
    index = triplets.index(0, 0, 64)
    batch = triplets.gather(index)
    end_intensities = takes.intensity[np.stack([index.a, index.b])]
    has_middle = index.has_middle
    assert (has_middle == (end_intensities.max(0) - end_intensities.min(0) > 0.3)).all()
    assert (takes.subject[index.middle] == takes.subject[index.a]).all()
    assert (index.middle[~has_middle] == index.a[~has_middle]).all()
    middle = takes.intensity[index.middle]
    assert ((middle > end_intensities.min(0)) & (middle < end_intensities.max(0)))[has_middle].all()
    interpolated = (1 - batch.alpha) * end_intensities[0] + batch.alpha * end_intensities[1]
    assert interpolated[has_middle] == pytest.approx(middle[has_middle], abs=1e-6)


def test_a_middle_frame_lies_between_in_time_too():
    """In a smile that comes and goes, a frame of the offset is not between two of the onset."""
    faces = Faces.of(person(0, [0, 0.2, 0.4, 0.6, 0.8, 1, 0.9, 0.7, 0.5, 0.3, 0.1], sequence="t"))
    triplets = Triplets(faces)
    index = [triplets.index(0, step, 64) for step in range(4)]
    a, b, middle, has_middle = (
        np.concatenate([getattr(i, name) for i in index]) for name in ("a", "b", "middle", "has_middle")
    )
    start, end, frame = faces.frame[a], faces.frame[b], faces.frame[middle]
    assert ((np.minimum(start, end) < frame) & (frame < np.maximum(start, end)))[has_middle].all()
    assert has_middle[(start == 0) & (end == 5)].all() and not has_middle[(start == 1) & (end == 10)].any()


def test_of_several_folders_each_gives_anchors_in_proportion_to_its_people():
    """So that the many frames of a clip do not starve photographs."""
    photographs, frames = (
        Faces.of(pairs(3)),
        Faces.of([face("k", "smile", k / 99, "take", value=k) for k in range(100)]),
    )
    faces = Faces.join([photographs, replace(frames, folder=np.ones(100, np.int64))])
    triplets = Triplets(faces)
    assert list(triplets.folder_shares) == [3 / 4, 1 / 4]
    anchors = np.concatenate([triplets.index(0, step, 8).a for step in range(400)])
    assert np.mean(anchors < len(photographs)) == pytest.approx(3 / 4, abs=0.03)
    assert len(np.unique(anchors)) == len(faces)


def test_full_changes_are_drawn_between_neutral_and_apex_of_one_person():
    records = [r for k in range(3) for r in person(k, [0, 0.3, 0.6, 1.0], sequence=f"t{k}")]
    triplets = Triplets(Faces.of(records), full_changes=0.5)
    index = [triplets.index(0, step, 8) for step in range(100)]
    a, b = (np.concatenate([getattr(i, name) for i in index]) for name in "ab")
    change = np.array([abs(records[i].intensity - records[j].intensity) for i, j in zip(a, b, strict=True)])
    assert all(records[i].subject == records[j].subject for i, j in zip(a, b, strict=True))
    by_chance = 1 / 2 * 1 / 3  # a is an end, and b the one of three others that is the other end
    assert np.mean(change == 1) == pytest.approx(0.5 + 0.5 * by_chance, abs=0.04)
    assert all(Triplets(Faces.of(records), full_changes=1.0).index(0, 0, 8).has_b)


def test_without_ends_a_full_change_is_any_change():
    triplets = Triplets(Faces.of(person(0, [0.3, 0.6], sequence="t")), full_changes=1.0)
    index = triplets.index(0, 0, 8)
    assert index.has_b.all() and (index.a != index.b).all()
