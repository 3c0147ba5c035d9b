"""Worker processes that die, hang or meet an unexpected error."""

from pathlib import Path

import evil_worker
import pytest
from mutants import face, image_bytes

from data_prep.cropping import crop, jobs, workers
from data_prep.cropping.crop import Cropping
from data_prep.cropping.workers import Lost
from data_prep.layouts.scan import Source
from facedisent_jax.errors import UserError


def test_a_worker_that_dies_or_hangs_is_replaced():
    jobs = iter([1, "crash", 2, "loop", 3, 4])
    time_limit = lambda job: 1.0 if job == "loop" else 60.0  # noqa: E731
    answers = dict(workers.run_jobs(evil_worker.square, lambda: next(jobs, None), 2, time_limit))
    assert answers == {1: 1, "crash": Lost("died"), 2: 4, "loop": Lost("took more than 1 seconds"), 3: 9, 4: 16}


def test_an_image_that_ends_its_worker_is_listed_and_all_others_are_used(monkeypatch):
    monkeypatch.setattr(jobs, "work", evil_worker.crop_to_black)
    keys = [*map(str, range(20)), "crash", *map(str, range(20, 30))]
    sources = [Source(Path(key), key, key) for key in keys]
    used_keys, reasons = set(), {}
    for crops in jobs.crop_all(sources, Cropping("none"), 2):
        used_keys |= {source.key for source in crops.sources}
        reasons |= dict(crops.rejected)
    assert used_keys == set(keys) - {"crash"} and set(reasons) == {"crash"}
    assert reasons["crash"].startswith("its process died: ")


def test_if_every_worker_dies_the_machine_is_blamed_and_not_the_images(monkeypatch):
    monkeypatch.setattr(jobs, "work", evil_worker.crop_to_black)
    monkeypatch.setattr(jobs, "MAX_LOSSES", 1)
    sources = [Source(Path("crash"), "crash", f"{k}") for k in range(40)]
    with pytest.raises(UserError, match="2 worker processes in a row died or hung, .*--workers 1"):
        list(jobs.crop_all(sources, Cropping("none"), 2))


def test_an_unexpected_error_costs_only_its_image(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(image_bytes(face(), "PNG"))
    sources = [Source(tmp_path / "a.png", key, key) for key in ("bad", "good")]
    read_source = crop._read_source
    monkeypatch.setattr(crop, "_read_source", lambda s, *a, **k: 1 / 0 if s.key == "bad" else read_source(s, *a, **k))
    crops, _ = jobs.work(Cropping("none"), jobs.Job([[source] for source in sources]))
    assert [source.key for source in crops.sources] == ["good"]
    assert [tuple(entry) for entry in crops.rejected] == [("bad", "unexpected ZeroDivisionError: division by zero")]


def test_a_process_that_draws_and_dies_is_replaced(monkeypatch):
    from data_prep.synthetic import faces

    start_worker, kills = workers._start, []

    def start(work):
        worker = start_worker(work)
        if not kills:
            kills.append(worker.process.kill())
        return worker

    serial_records = list(faces.records(3, levels=2))
    monkeypatch.setattr(workers, "_start", start)
    parallel_records = list(faces.records(3, levels=2, workers=2))
    assert kills and [key for key, _ in parallel_records] == [key for key, _ in serial_records]
    assert all((a.image == b.image).all() for (_, a), (_, b) in zip(serial_records, parallel_records, strict=True))
