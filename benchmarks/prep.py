"""Data preparation against pure decoding: `python benchmarks/prep.py [--pictures N] [--json FILE]`.

Draws folders with the names, sizes and number of illuminations of Multi-PIE (640x480 PNG). Measures the images per
second of `python -m data_prep multipie`, of cropping alone, and of Pillow decoding the same files in as many processes.
Extrapolates the time for all of Multi-PIE (750,000 images) to 1, 16 and 256 workers.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

MULTIPIE_IMAGES, MULTIPIE_BYTES = 750_000, 305e9
ILLUMINATIONS = 20


def write_images(root: Path, count: int) -> int:
    """Write drawn faces in the middle of noisy grey images, under each illumination. Returns their bytes on disk."""
    from data_prep.synthetic import faces

    rng = np.random.default_rng(0)
    subjects = -(-count // ILLUMINATIONS)
    neutral_faces = [record.image for _, record in faces.records(subjects, levels=2)][::2]
    for subject, face in enumerate(neutral_faces, 1):
        folder = root / "session01" / "multiview" / f"{subject:03}" / "01" / "05_1"
        folder.mkdir(parents=True)
        pixels = np.asarray(Image.fromarray(face).resize((260, 260)), float)
        for illumination in range(ILLUMINATIONS):
            image = np.full((480, 640, 3), 90.0)
            image[110:370, 190:450] = pixels
            image = image * (0.6 + 0.03 * illumination) + rng.normal(0, 3, image.shape)
            name = f"{subject:03}_01_01_051_{illumination:02}.png"
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name)
    return sum(path.stat().st_size for path in root.rglob("*.png"))


def decode(path: Path) -> int:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).size


def measure(count: int) -> dict:
    """Rates in images per second."""
    from data_prep.cropping import crop, jobs
    from data_prep.layouts import multipie
    from data_prep.output import build

    workers = build.core_count()
    with tempfile.TemporaryDirectory() as parent:
        raw = Path(parent) / "raw"
        total_bytes = write_images(raw, count)
        files = sorted(raw.rglob("*.png"))
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.map(decode, files[: 2 * workers], 1)
            start = time.perf_counter()
            pool.map(decode, files, 8)
            decoding_rate = len(files) / (time.perf_counter() - start)
        scan = multipie.scan_multipie(raw)
        cropping = crop.Cropping("haar", 0.0, None, None)
        start = time.perf_counter()
        crop_count = sum(len(crops.images) for crops in jobs.crop_all(scan.sources, cropping, workers))
        cropping_rate = len(files) / (time.perf_counter() - start)
        start = time.perf_counter()
        build.build_from_scan(Path(parent) / "out", scan, build.Plan("multipie", "haar"))
        command_rate = len(files) / (time.perf_counter() - start)
    core_rate = cropping_rate / workers
    return {
        "pictures": len(files),
        "cropped": crop_count,
        "bytes_a_picture": total_bytes / len(files),
        "workers": workers,
        "load_average": os.getloadavg()[0],
        "decoding": decoding_rate,
        "cropping": cropping_rate,
        "command": command_rate,
        "cropping_against_decoding": cropping_rate / decoding_rate,
        "hours_for_all": {n: MULTIPIE_IMAGES / core_rate / n / 3600 for n in (1, 16, 256)},
        "read_MB_per_second": {n: MULTIPIE_BYTES / 1e6 * core_rate * n / MULTIPIE_IMAGES for n in (1, 16, 256)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.pictures)
    print(f"{result['pictures']} pictures of {result['bytes_a_picture'] / 1000:.0f} kB, {result['workers']} processes, "
          f"load average {result['load_average']:.1f}; {result['cropped']} faces found.")  # fmt: skip
    for name in ("decoding", "cropping", "command"):
        print(f"{name:10} {result[name]:8.0f} pictures/s")
    print(f"cropping runs at {result['cropping_against_decoding']:.2f} of the rate of decoding")
    for n, hours in result["hours_for_all"].items():
        megabytes = result["read_MB_per_second"][n]
        print(f"all of Multi-PIE on {n:3} workers: {60 * hours:6.1f} minutes, reading {megabytes:,.0f} MB/s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
