"""Images in memory take their bytes once; images on disk take none, however many they are."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tiny_run import ROOT

from facedisent_jax.data.stream import GATHER_TRIPLETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PEOPLE, LEVELS = 500, 24
DATA = PEOPLE * LEVELS * 64 * 64 * 3  # bytes of the images: 147 MB


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two data folders with half of the people each."""
    from tiny_run import person, write_folder

    root, levels = tmp_path_factory.mktemp("memory"), np.linspace(0, 1, LEVELS)
    paths = []
    for part in range(2):
        people = range(part * PEOPLE // 2, (part + 1) * PEOPLE // 2)
        records = [record for k in people for record in person(k, levels, sequence="take")]
        paths.append(str(write_folder(root / f"part{part}", {"train": records})))
    return paths


SETUP = """if True:
    import json, re, resource, sys
    from pathlib import Path
    import numpy as np
    import tensorflow as tf
    from facedisent_jax.data.reading import read_faces, read_info
    from facedisent_jax.data.stream import batches
    from facedisent_jax.data.triplets import Triplets

    def anonymous():
        return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    def peak():
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    folders = json.loads(sys.argv[1])
    list(tf.data.TFRecordDataset(next(str(p) for p in Path(folders[0]).glob("faces-*"))).take(300).batch(128))
    read_info(folders[0])
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = anonymous()
"""


def run_python(code: str, folders: list[str]) -> dict:
    command = [sys.executable, "-c", SETUP + code, json.dumps(folders)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("ends_only", [True, pytest.param(False, marks=pytest.mark.long)])
def test_images_in_memory_take_their_bytes_once(folders, ends_only):
    code = f"""
    start = peak()
    faces = read_faces(folders, "train", 8.0, ends_only={ends_only})
    triplets = Triplets(faces)
    print(json.dumps([len(faces), peak() - start]))
    """
    count, bytes_used = run_python(code, folders)
    assert count == PEOPLE * (4 if ends_only else LEVELS)
    images = DATA * count / (PEOPLE * LEVELS)
    # 50 MB: the buffers of the reader, however much is read; 20 to 35 on an idle machine, 45 were seen on a busy one
    assert images < bytes_used < 1.1 * images + 50e6


@pytest.mark.slow
@pytest.mark.long
def test_images_larger_than_memory_are_read_as_they_are_needed(folders):
    """The process takes less than the bytes of the images, and no more at the end than at the beginning. Pages of files
    do not count: the system can drop them at any time."""
    code = f"""
    triplets = Triplets(read_faces(folders, "train", memory=0.0))
    used = []
    for batch in batches(triplets, 0, 0, 300, 32):
        used.append(anonymous() - before)
        if len(used) == 50:  # all threads have started
            limit = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (limit + {2 * DATA // 3}, resource.RLIM_INFINITY))
    assert batch.images.shape == (3, 32, 64, 64, 3)
    print(json.dumps([max(used[50:175]), max(used[175:])]))
    """
    first_peak, second_peak = run_python(code, folders)
    assert max(first_peak, second_peak) < 3 / 4 * DATA  # only the batches prepared ahead, however large the data
    # Timing of the threads makes a difference of up to two gathers; the batches of the second half are 147 MB.
    assert second_peak - first_peak < 2.5 * GATHER_TRIPLETS * 4 * 64 * 64 * 3
