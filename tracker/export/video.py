"""Write the overlay video anew from a track: heads over the original, or panels that show what the prior saw.

The original's pictures, times and sound; pictures without a tracked head stay and say why. Panels look at the clip
again as tracking did, with the same prior, the same scouting and in the same order: what they show is what the tracker
was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracker.export.job import ExportJob, Written
from tracker.frames import Frame
from tracker.output_files import write_image
from tracker.pictures import Painter, PictureOptions, ShownFace, shown_faces
from tracker.recorded_options import recorded_config, recorded_options
from tracker.video_writer import VideoWriter

if TYPE_CHECKING:
    from tracker.clip import Toolkit


def write(job: ExportJob) -> Written:
    """Write ``overlay.mp4``, or ``overlay.png`` for an image.

    Raises:
        UserError: the clip is not where it was, or panels are wanted and the prior's networks are not.
    """
    track, options = job.track, job.options
    toolkit = _toolkit(job) if options.panels else None
    painter = Painter(
        track.head_model,
        list(track.identity),
        track.intrinsics,
        PictureOptions.of(recorded_config(track), panels=options.panels, layout=options.layout),
        None if toolkit is None else toolkit.prior,
    )
    shown = _shown(job) if toolkit is None else _seen_again(job, toolkit)
    pictures = ((frame, painter.picture(frame.image, faces)) for frame, faces in shown)
    path = job.folder / ("overlay.png" if job.source.kind == "image" else "overlay.mp4")
    if job.source.kind == "image":
        for _, picture in pictures:
            write_image(path, picture)
        return Written((path,))
    start_seconds = recorded_options(track).start_seconds
    video: VideoWriter | None = None
    try:
        for frame, picture in job.steps(pictures, len(track), "video"):
            if video is None:
                height, width = picture.shape[:2]
                video = VideoWriter(path, job.source, height, width, start_seconds=start_seconds)
            video.write(picture, frame.pts_seconds)
    finally:
        if video is not None:
            video.close()
    num_empty = int((~track.is_tracked.any(axis=0)).sum())
    return Written((path,), (f"{num_empty} pictures without a head",) if num_empty else ())


def _shown(job: ExportJob) -> Iterator[tuple[Frame, tuple[ShownFace, ...]]]:
    """Pair the clip's frames with what the track says."""
    for position, frame in job.frames():
        yield frame, shown_faces(job.track, position)


def _toolkit(job: ExportJob) -> Toolkit:
    """Load prior and head as they were when the clip was tracked.

    Raises:
        UserError: they are not where they were.
    """
    from tracker.clip import load_toolkit

    options = recorded_options(job.track)
    # A converted track is on another head than the prior spoke of; a head that has moved is where the track has it.
    head = options.head if job.options.convert_to else job.track.head
    return load_toolkit(head, options.prior, options.settings, options.device, options.weights)


def _seen_again(job: ExportJob, toolkit: Toolkit) -> Iterator[tuple[Frame, tuple[ShownFace, ...]]]:
    """Pair the clip's frames with what the track says and the prior sees, found as it was when tracking."""
    from tracker.clip import scout
    from tracker.faces import FaceFollower
    from tracker.scout import anchors

    options = recorded_options(job.track)
    seen = scout(toolkit, job.source, options.span, options.faces, options.camera(job.source))
    people = [anchors(glimpses) for glimpses in seen] or [[]]
    follower = FaceFollower(toolkit.prior, people, options.settings.status)
    for position, frame in job.frames():
        evidence = [sighting.evidence for sighting in follower.observe(frame.image, frame.pts_seconds)]
        # Whoever scouting no longer finds, or finds only now, has nothing to show.
        evidence = [*evidence, *([None] * job.track.num_people)][: job.track.num_people]
        yield frame, shown_faces(job.track, position, evidence)
