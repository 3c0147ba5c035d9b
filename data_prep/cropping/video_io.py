"""Reads single frames of video files. OpenCV is imported when a file is opened."""

import functools
import os
from pathlib import Path

from PIL import Image

from data_prep.cropping.image_io import MAX_MEGAPIXELS, ImageError, UprightImage

# Without these limits a playlist that is named like a video would have FFmpeg open other files, or the network.
FFMPEG_OPTIONS = "protocol_whitelist;file|format_whitelist;avi,mov,matroska,webm,mpeg,mpegts,mpegvideo,m4v,asf"


def count_frames(path: Path) -> int:
    """Count the frames that can be decoded. Raises ImageError for a file that is damaged or no video."""
    video = _Video(path)
    count = 0
    while video.capture.grab():
        count += 1
    if not count:
        raise ImageError("video without a frame that can be decoded")
    if count < video.declared_frames:
        raise ImageError(f"truncated video: must have {video.declared_frames} frames, got {count}")
    return count


def read_frame(path: Path, frame: int) -> UprightImage:
    """Read one frame, counted from 0. Frames in order are cheap; going back starts the video anew."""
    video = _open_video(path)
    if video.next_frame > frame:
        _open_video.cache_clear()
        video = _open_video(path)
    return video.read(frame)


class _Video:
    """A video that is read from its beginning: seeking is not exact in every format."""

    def __init__(self, path: Path):
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it writes to the terminal past Python
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
        import cv2

        if not path.is_file():
            raise ImageError("missing file, or a broken link")
        if path.stat().st_size == 0:
            raise ImageError("empty file")
        try:
            name = str(path.absolute())
            name.encode()
        except UnicodeEncodeError:  # OpenCV would crash
            raise ImageError("its name is not UTF-8, which OpenCV needs") from None
        self.capture, self.next_frame = cv2.VideoCapture(name, cv2.CAP_FFMPEG), 0
        if not self.capture.isOpened():
            raise ImageError("damaged video, or of a type that is not supported")
        width, height = (self.capture.get(name) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_MEGAPIXELS * 1_000_000:
            raise ImageError(f"more than {MAX_MEGAPIXELS} million pixels")
        self.declared_frames = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less if the file does not say

    def read(self, frame: int) -> UprightImage:
        pixels = None
        while self.next_frame <= frame:
            succeeded = self.capture.grab()
            self.next_frame += 1
            if succeeded and self.next_frame > frame:
                succeeded, pixels = self.capture.retrieve()
            if not succeeded:
                raise ImageError("damaged frame of a video")
        if pixels is None:
            raise ImageError("damaged frame of a video")
        return UprightImage(Image.fromarray(pixels[..., ::-1].copy()), (pixels.shape[1], pixels.shape[0]))


@functools.lru_cache(maxsize=1)
def _open_video(path: Path) -> _Video:
    return _Video(path)
