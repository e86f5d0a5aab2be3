"""Frames in: videos, images and folders of images as upright RGB pictures with the container's times."""

from tracker.frames.images import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from tracker.frames.images import read_image as read_image
from tracker.frames.random_access import frame_seconds as frame_seconds
from tracker.frames.random_access import read_frames_at as read_frames_at
from tracker.frames.source import FrameSource as FrameSource
from tracker.frames.source import check_range as check_range
from tracker.frames.source import open_source as open_source
from tracker.frames.source import probe_source as probe_source
from tracker.frames.types import Frame as Frame
from tracker.frames.types import SourceInfo as SourceInfo
