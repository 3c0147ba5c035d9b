"""Work for worker processes in tests. It has its own module because a worker imports the module of its work."""

import os
import time

import numpy as np

from data_prep.cropping import crop, jobs

REAL_WORK = jobs.work  # tests replace it


def square(job: str | int) -> int:
    """The square of a number. `crash` ends the process, `loop` never ends."""
    if job == "crash":
        os._exit(1)
    while job == "loop":
        time.sleep(1)
    return int(job) ** 2


def crop_to_black(cropping: crop.Cropping, job: jobs.Job):
    """Black crops. A source named `crash` ends the process."""
    keys = [source.key for source in job.sources]
    if "crash" in keys:
        os._exit(1)
    images = np.zeros((len(keys), 64, 64, 3), np.uint8)
    return crop.Crops(job.sources, images, [""] * len(keys), []), None


def crash_on_landmark_file(cropping: crop.Cropping, job: jobs.Job):
    """Crop; but a source with a landmark file ends the process, as SciPy does on some damaged files."""
    if any(source.landmark_file for source in job.sources):
        os._exit(1)
    return REAL_WORK(cropping, job)
