"""A data folder and a run small enough for tests: flat coloured faces, an untrained network, a real checkpoint."""

import json
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from facedisent_jax.data.record import NAME, PREP_FILE, SPLITS, Record

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"  # photographs outside the repository: tests that use them skip without them


def flat_face(subject: int, intensity: float) -> np.ndarray:
    """[64, 64, 3] uint8: the colour shows the subject, the brightness of the mouth the intensity."""
    rng = np.random.default_rng(subject)
    face = np.broadcast_to(rng.integers(30, 200, 3), (64, 64, 3)).astype(np.uint8).copy()
    face[10:30] += rng.integers(0, 30, (20, 64, 3), np.uint8)
    face[40:60, 15:50] = int(255 * intensity)
    return face


def person(
    number: int, levels: Iterable[float] = (0.0, 1.0), name: str | None = None, sequence: str = ""
) -> list[Record]:
    """Images of one person in one sequence, one per intensity."""
    name = f"p{number:03d}" if name is None else name
    return [
        Record(flat_face(number, y), name, "smile" if y > 0 else "neutral", sequence, frame=k, intensity=y)
        for k, y in enumerate(levels)
    ]


def write_folder(folder: Path, splits: dict[str, list[Record]]) -> Path:
    """A data folder as `python -m data_prep` writes it, without TFDS's own files."""
    import tensorflow as tf

    def feature(value):
        if isinstance(value, str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))

    folder.mkdir(parents=True)
    for split, records in splits.items():
        with tf.io.TFRecordWriter(str(folder / f"{NAME}-{split}.tfrecord-00000-of-00001")) as writer:
            for record in records:
                columns = {name: feature(value) for name, value in record._asdict().items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=columns)).SerializeToString())
    info = {
        "source": "synthetic",
        "detector": "none",
        "margin": 0.0,
        "options": {},
        "splits": {split: len(splits.get(split, [])) for split in SPLITS},
        "subjects": {split: sorted({r.subject for r in splits.get(split, [])} - {""}) for split in SPLITS},
        "pictures": sum(map(len, splits.values())),
        "rejected": {},
        "left_out": {},
        "version": 1,
    }
    (folder / PREP_FILE).write_text(json.dumps(info))
    return folder


HARM = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&\n"  # would run in a page


def harmful(value):
    """The same values, with HARM before every text in them."""
    if isinstance(value, dict):
        return {name: harmful(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [harmful(inner) for inner in value]
    return HARM + value if isinstance(value, str) else value


def tags(html: str) -> list[tuple[str, list[str]]]:
    """The tags of a page with the names of their attributes."""
    out = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            out.append((tag, [name for name, _ in attrs]))

    Reader().feed(html)
    return out


def write_run(run: Path, data: Path, crop: dict | None = None, model=None) -> Path:
    """A run folder with the checkpoint of an untrained network, and two lines of metrics.jsonl."""
    from facedisent_jax.config import Config, ModelConfig
    from facedisent_jax.data.reading import read_split
    from facedisent_jax.training import checkpoint
    from facedisent_jax.training.step import init_state

    config = Config(data=(str(data),), run=str(run), seed=3, model=model or ModelConfig(width=128, blocks=1))
    train = read_split(data, "train")
    info = {
        "data": [str(data)],
        "crop": crop or {"detector": "none", "margin": 0.0},
        "train_subjects": sorted(set(train.subject.tolist()) - {""}),
        "expressions": sorted(set(train.expression.tolist()) - {"", "neutral"}),
    }
    run.mkdir(parents=True)
    state = init_state(config, train)
    with checkpoint.Checkpoints(run) as checkpoints:
        checkpoints.save(state, config, info, {checkpoint.METRIC: 0.1})
        checkpoints.wait()
    lines = [{"step": 1, "reconstruction": 0.1, "swap": 0.2}, {"step": 2, "validation/swap_psnr": 20.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "rec')
    return run


def terms(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without the timings."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
