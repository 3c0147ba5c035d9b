"""Reads frames of video files. Imports pictures for its error and its type; OpenCV where a file is opened."""

import functools
import os
from pathlib import Path

from PIL import Image

from data_prep.cropping.image_io import MILLION_PIXELS, ImageError, UprightImage

FFMPEG = "protocol_whitelist;file|format_whitelist;avi,mov,matroska,webm,mpeg,mpegts,mpegvideo,m4v,asf"
"""A playlist that is named like a video would have FFmpeg open other files, or the network."""


def count_frames(path: Path) -> int:
    """How many frames can be decoded. Raises PictureError, a short reason, for a file that is damaged or no video."""
    video = _Video(path)
    number = 0
    while video.capture.grab():
        number += 1
    if not number:
        raise ImageError("video without a frame that can be decoded")
    if number < video.promised:
        raise ImageError(f"truncated video: {number} frames can be decoded, {video.promised} were expected")
    return number


def read_frame(path: Path, frame: int) -> UprightImage:
    """Frame number `frame`, from 0. Cheap for frames one after the other; going back starts the video anew."""
    video = _opened(path)
    if video.next > frame:
        _opened.cache_clear()
        video = _opened(path)
    return video.read(frame)


class _Video:
    """A video that is read from its beginning: seeking is not exact in every format."""

    def __init__(self, path: Path):
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its complaints go to the terminal, past Python
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG)
        import cv2

        if not path.is_file():
            raise ImageError("the file is gone, or a broken link")
        if path.stat().st_size == 0:
            raise ImageError("empty file")
        try:
            name = str(path.absolute())
            name.encode()
        except UnicodeEncodeError:  # OpenCV would crash
            raise ImageError("its name is not UTF-8, which OpenCV needs") from None
        self.capture, self.next = cv2.VideoCapture(name, cv2.CAP_FFMPEG), 0
        if not self.capture.isOpened():
            raise ImageError("damaged video, or of a type that is not read")
        width, height = (self.capture.get(name) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MILLION_PIXELS * 1_000_000:
            raise ImageError(f"more than {MILLION_PIXELS} million pixels")
        self.promised = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less where the file does not say

    def read(self, frame: int) -> UprightImage:
        image = None
        while self.next <= frame:
            got = self.capture.grab()
            self.next += 1
            if got and self.next > frame:
                got, image = self.capture.retrieve()
            if not got:
                raise ImageError("damaged frame of a video")
        if image is None:
            raise ImageError("damaged frame of a video")
        return UprightImage(Image.fromarray(image[..., ::-1].copy()), (image.shape[1], image.shape[0]))


@functools.lru_cache(maxsize=1)
def _opened(path: Path) -> _Video:
    return _Video(path)
