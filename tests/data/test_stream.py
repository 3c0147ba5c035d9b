"""A record written is a record read; batches depend neither on where images lie nor on where the stream starts."""

import json
import time

import numpy as np
import pytest
from tiny_run import person, write_folder

from facedisent_jax.data import reading, stream
from facedisent_jax.data.mapped_images import MappedImages
from facedisent_jax.data.reading import read_split
from facedisent_jax.data.record import Faces
from facedisent_jax.data.stream import GATHER_TRIPLETS, batches, without_autotune
from facedisent_jax.data.triplets import Triplets
from facedisent_jax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    records = [r for k in range(4) for r in person(k, (0.0, 0.3, 1.0), sequence="take")]
    return write_folder(tmp_path_factory.mktemp("data") / "faces", {"train": records, "test": person(9)})


def columns(faces):
    return {name: np.asarray(value[:]) for name, value in vars(faces).items()}


def test_a_record_written_is_a_record_read(folder):
    expected = columns(Faces.of([r for k in range(4) for r in person(k, (0.0, 0.3, 1.0), sequence="take")]))
    for in_memory in (True, False):
        faces = read_split(folder, "train", in_memory)
        for name, value in columns(faces).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert isinstance(faces.image, MappedImages)


def test_batches_from_disk_equal_batches_from_memory(folder):
    memory, disk = (Triplets(reading.read_faces([folder], "train", gib)) for gib in (1.0, 0.0))
    assert isinstance(disk.faces.image, MappedImages) and not isinstance(memory.faces.image, MappedImages)
    for a, b in zip(memory.batch(0, 3, 5), disk.batch(0, 3, 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_step_gets_its_batch_wherever_the_stream_starts(folder):
    triplets = Triplets(reading.read_faces([folder], "train"))
    steps = 2 * (GATHER_TRIPLETS // 4) + 3  # three gathers, the last one not full
    all_batches = list(batches(triplets, seed=5, start=0, stop=steps, batch=4))
    later_batches = list(batches(triplets, seed=5, start=6, stop=steps, batch=4))
    assert len(all_batches) == steps and len(later_batches) == steps - 6
    for k in range(steps):
        for a, b in zip(all_batches[k], triplets.batch(5, k, 4), strict=True):
            np.testing.assert_array_equal(a, b)
    for batch, later_batch in zip(all_batches[6:], later_batches, strict=True):
        for a, b in zip(batch, later_batch, strict=True):
            np.testing.assert_array_equal(a, b)


def test_tensorflow_does_not_tune_a_stream(folder, monkeypatch):
    """Its tuner would hold up the end of a stream."""
    datasets = []
    monkeypatch.setattr(stream, "without_autotune", lambda data: datasets.append(without_autotune(data)) or datasets[0])
    next(batches(Triplets(reading.read_faces([folder], "train")), seed=0, start=0, stop=2, batch=4))
    assert datasets[0].options().autotune.enabled is False


@pytest.mark.slow
@pytest.mark.long
def test_a_stream_ends_at_once_after_its_last_batch(folder):
    triplets = Triplets(reading.read_faces([folder], "train"))
    waits = []
    for _ in range(80):
        for _ in batches(triplets, seed=0, start=0, stop=256, batch=4):
            last_time = time.perf_counter()
        waits.append(time.perf_counter() - last_time)
    # TensorFlow's tuner delayed the end of every seventh stream or so by 10 to 50 ms; a busy machine delays a few.
    assert sum(wait > 0.008 for wait in waits) < 5, waits


def test_a_person_held_out_in_one_folder_is_held_out_in_all(folder, tmp_path):
    second_folder = write_folder(tmp_path / "other", {"train": person(9) + person(20), "test": person(0)})
    faces = reading.read_faces([folder, second_folder], "train")
    assert set(faces.subject) == {"p001", "p002", "p003", "p020"}


def test_a_person_held_out_is_held_out_by_another_spelling_of_the_name(folder, tmp_path):
    """p001 of the first folder trains, unless the other folder tests a P1."""
    held_out = [record._replace(subject=" P1", image=record.image ^ 1) for record in person(1)]
    second_folder = write_folder(tmp_path / "other", {"train": person(20), "test": held_out})
    faces = reading.read_faces([folder, second_folder], "train")
    assert set(faces.subject) == {"p000", "p002", "p003", "p020"}


def test_an_image_held_out_in_one_folder_does_not_train_under_another_name(folder, tmp_path):
    held_out = [record._replace(subject="Ann") for record in person(1)[:1]]
    second_folder = write_folder(tmp_path / "other", {"train": person(20), "validation": held_out})
    faces = reading.read_faces([folder, second_folder], "train")
    assert sorted(faces.subject.tolist()).count("p001") == 2  # of 3


def test_folders_cropped_with_different_margins_are_refused(folder, tmp_path):
    second_folder = write_folder(tmp_path / "loose", {"train": person(1)})
    info = json.loads((second_folder / "prep.json").read_text())
    (second_folder / "prep.json").write_text(json.dumps(info | {"margin": 0.5}))
    assert reading.crop_of([folder]) == {"detector": "none", "margin": 0.0}
    with pytest.raises(UserError, match="same margin"):
        reading.crop_of([folder, second_folder])


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_a_folder_without_records_is_refused_with_advice(tmp_path, make):
    make(tmp_path / "faces")
    with pytest.raises(UserError, match="python -m data_prep"):
        read_split(tmp_path / "faces", "train")
