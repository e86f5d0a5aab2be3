from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flame.errors import AssetMissingError, InputError
from tests.tracker.export.tracks import small_track, toy_head_file
from tests.tracker.face_clips import write_video
from tracker.export import FORMATS, ExportJob, ExportOptions, Written, export
from tracker.export.__main__ import main
from tracker.export.formats import Format, find_formats
from tracker.export.writing import _write
from tracker.frames import probe_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the output folder of a run."""
    path = tmp_path / "clip_track"
    path.mkdir()
    small_track(frames=3).save(path)
    return path


def write_greeting(job: ExportJob) -> Written:
    (job.folder / "greeting.txt").write_text("hello")
    return Written((job.folder / "greeting.txt",), ("a note",))


def write_source(job: ExportJob) -> Written:
    assert job.source == "the clip"
    return Written(())


def write_half(job: ExportJob) -> Written:
    (job.folder / "half.txt").write_text("half")
    raise InputError("no more.")


def format_of(writer) -> Format:
    return Format("greeting", "", "", "hold", f"{__name__}:{writer.__name__}")


@pytest.fixture
def job(tmp_path: Path, monkeypatch) -> ExportJob:
    """Return a job whose formats are the functions of this file."""
    monkeypatch.setattr(Format, "load", lambda self: globals()[self.writer.rpartition(":")[2]])
    return ExportJob(small_track(frames=2), tmp_path)


def test_every_format_has_a_writer_and_names_its_rule():
    for each in FORMATS.values():
        assert callable(each.load())
        assert each.lost in ("hold", "gap", "skip") and each.readers and each.summary


def test_names_may_be_joined_repeated_and_all():
    assert [each.name for each in find_formats(["ply,obj", "ply"])] == ["ply", "obj"]
    assert [each.name for each in find_formats("obj, ply,")] == ["obj", "ply"]
    assert [each.name for each in find_formats(["all"])] == [each.name for each in find_formats("obj,all")]
    assert [each.name for each in find_formats(["all"])] == list(FORMATS)
    with pytest.raises(InputError, match="'glbb' is not known"):
        find_formats("all,glbb")


def test_a_format_appears_when_it_is_complete(job, tmp_path):
    (tmp_path / "greeting").mkdir()
    (tmp_path / "greeting" / "old.txt").touch()
    done = _write(format_of(write_greeting), job)
    assert done.paths == (tmp_path / "greeting" / "greeting.txt",) and done.notes == ("a note",)
    assert [path.name for path in (tmp_path / "greeting").iterdir()] == ["greeting.txt"]


def test_a_failed_format_leaves_the_earlier_one(job, tmp_path):
    _write(format_of(write_greeting), job)
    with pytest.raises(InputError, match="no more"):
        _write(format_of(write_half), job)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["greeting", "greeting.txt"]


def test_an_interruption_while_the_earlier_one_is_removed_leaves_one_of_the_two_whole(job, tmp_path, monkeypatch):
    (tmp_path / "greeting").mkdir()
    for name in "abc":
        (tmp_path / "greeting" / name).touch()

    rmtree = shutil.rmtree

    def interrupted(path, **options):
        if path.name.endswith(".part"):
            return rmtree(path, **options)
        next(iter(path.iterdir())).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", interrupted)
        _write(format_of(write_greeting), job)
    assert [path.name for path in (tmp_path / "greeting").iterdir()] == ["greeting.txt"]
    _write(format_of(write_greeting), job)
    assert [path.name for path in tmp_path.iterdir()] == ["greeting"]


def test_an_earlier_export_comes_back_where_the_new_one_cannot_take_its_place(job, tmp_path, monkeypatch):
    (tmp_path / "greeting").mkdir()
    (tmp_path / "greeting" / "old.txt").touch()
    rename = Path.rename

    def refuse(path, target):
        if path.name.endswith(".part"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", refuse)
        _write(format_of(write_greeting), job)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["greeting", "old.txt"]


def test_a_file_in_the_way_of_the_folder_is_replaced(job, tmp_path):
    (tmp_path / "greeting").write_text("a file")
    assert _write(format_of(write_greeting), job).paths[0].read_text() == "hello"


def test_frames_are_those_of_the_track(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", list(pictures))
    track = small_track(frames=3, source=tmp_path / "clip.mp4")
    track.frame_index[:] = (1, 2, 4)
    found = [(position, frame.index) for position, frame in ExportJob(track, tmp_path).frames()]
    assert found == [(0, 1), (1, 2), (2, 4)]


def test_another_clip_in_place_of_the_tracked_one_is_refused(tmp_path):
    write_video(tmp_path / "clip.mp4", [np.zeros((32, 48, 3), np.uint8)] * 3)
    track = small_track(frames=3, source=tmp_path / "clip.mp4")
    track.info["source"]["sha256"] = probe_source(tmp_path / "clip.mp4").content_sha256
    assert ExportJob(track, tmp_path).source.width == 48
    write_video(tmp_path / "clip.mp4", [np.full((32, 48, 3), 200, np.uint8)] * 3)
    with pytest.raises(InputError, match="is not the clip that was tracked"):
        _ = ExportJob(track, tmp_path).source


def test_the_clip_is_looked_up_once_for_all_formats(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("tracker.tracked_clip.find_clip", lambda *_: calls.append(1) or "the clip")
    monkeypatch.setattr(Format, "load", lambda self: globals()[self.writer.rpartition(":")[2]])
    job = ExportJob(small_track(frames=2), tmp_path)
    for _ in range(3):
        _write(format_of(write_source), job)
    assert calls == [1]


def test_a_clip_that_has_moved_is_asked_for(tmp_path):
    track = small_track(frames=3, source=tmp_path / "gone.mp4")
    with pytest.raises(AssetMissingError, match="gone.mp4; say where it is with --source"):
        _ = ExportJob(track, tmp_path).source
    write_video(tmp_path / "here.mp4", [np.zeros((32, 48, 3), np.uint8)] * 3)
    found = ExportJob(track, tmp_path, ExportOptions(source=str(tmp_path / "here.mp4"))).source
    assert found.path == tmp_path / "here.mp4"


def test_a_track_in_memory_needs_an_output(tmp_path):
    with pytest.raises(InputError, match="say where to export to"):
        export(small_track(frames=2), ["obj"])
    assert export(small_track(frames=2), ["ply"], tmp_path / "out")[0].folder == tmp_path / "out" / "ply"


def test_nobody_tracked_is_nothing_to_export(tmp_path):
    with pytest.raises(InputError, match="nobody is tracked"):
        export(small_track(frames=2, lost=((0, 0), (0, 1))), ["obj"], tmp_path)


def test_a_converted_track_says_how_far_the_faces_are_apart(tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=2)
    [done] = export(track, ["ply"], tmp_path / "out", convert_to=str(toy_head_file(tmp_path)))
    assert done.notes[0].startswith("person 0 converted to toy_flame.pkl: face 0.00 mm (median)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["glbb"], "export 'glbb' is not known; did you mean glb?"),
        (["obj", "--mesh", "all"], "invalid choice: 'all'"),
        (["video", "--layout", "grid"], "--layout grid says how panels lie; add --panels."),
        (["obj", "--texture-px", "9"], "--texture-px 9: it must be from 64 to 4096"),
        (["obj", "--panel"], "unknown option --panel; did you mean --panels?"),
        (["obj", "--convert-to", "nothing.pkl"], "nothing.pkl"),
        (["obj", "--head", "nothing.pkl"], "nothing.pkl"),
        (["obj,ply,usd", "--head", "nothing.pkl"], "no such head file: nothing.pkl"),
        (["insta,colmap", "--matting", "nothing"], "matting 'nothing' is not known"),
        (["glb", "--source", "nothing.mp4"], "the clip of this track is not at nothing.mp4"),
        (["video"], "the clip of this track is not at a known place; say where it is with --source"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, message):
    try:
        status = main([str(folder), *arguments])
    except SystemExit as ended:
        status = ended.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1


def test_a_folder_without_a_track_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "obj"]) == 2
    assert capsys.readouterr().err.startswith(f"error: no track at {tmp_path / 'track.npz'}")


def test_the_command_tells_what_it_wrote_and_goes_on_after_a_failure(folder):
    command = [sys.executable, "-m", "tracker.export", str(folder), "video", "obj,ply"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: video: the clip of this track") and ended.stderr.count("\n") == 1
    assert [line.split()[0] for line in ended.stdout.splitlines() if line[2] != " "] == ["obj", "ply"]
    assert ended.stdout.count("without texture: the clip of this track is not at a known place") == 1
    assert sorted(path.name for path in (folder / "export").iterdir()) == ["obj", "ply"]
