"""``--export`` and ``--report`` while tracking, end to end."""

from __future__ import annotations

import re
import time

import pytest

from flame.errors import InputError
from tracker import report
from tracker.export import writing
from tracker.export.arkit import write as write_arkit


def test_exports_and_a_report_follow_the_summary(cli, face_clip, tmp_path):
    options = ("-o", "out", "--max-frames", "3", "--no-overlay", "--mesh", "neutral")
    outcome = cli(face_clip, *options, "--export", "arkit,ply", "--export", "obj", "--no-texture", "--report")
    assert (outcome.status, outcome.err) == (0, "")
    assert [tuple(line.split()) for line in outcome.out.splitlines()[-4:]] == [
        ("arkit", "out/export/arkit/arkit.csv"),
        ("ply", "out/export/ply/neutral.ply"),
        ("obj", "out/export/obj/neutral.obj"),
        ("report", "out/report.html"),
    ]
    assert sorted(path.name for path in (tmp_path / "out" / "export").iterdir()) == ["arkit", "obj", "ply"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--export", "insta", "--matting", "nonsense"), "matting 'nonsense' is not known"),
        (("--export", "obj", "--convert-to", "nothing.pkl"), "no such head file: nothing.pkl"),
        (("--export", "obj,vdeo"), "export 'vdeo' is not known; did you mean video?"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_tracked(cli, face_clip, tmp_path, options, message):
    outcome = cli(face_clip, "-o", "out", *options)
    assert outcome.status == 2 and outcome.out == "" and message in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_inputs_are_tracked_whatever_becomes_of_their_exports(cli, face_clip, monkeypatch):
    def refuse(*_arguments, **_options):
        raise InputError("not today.")

    monkeypatch.setattr(writing, "export", refuse)
    monkeypatch.setattr(report, "write_report", refuse)
    options = ("-o", "out", "--max-frames", "2", "--no-overlay", "--export", "obj", "--report")
    outcome = cli(face_clip, face_clip, *options)
    assert outcome.status == 2 and outcome.out.count("tracked in 2 of 2 frames") == 2
    assert outcome.err.splitlines() == ["error: export: not today.", "error: report: not today."] * 2


def test_a_new_track_takes_the_exports_of_the_former_one_away(cli, face_clip, tmp_path):
    options = ("-o", "out", "--max-frames", "2", "--no-overlay")
    assert cli(face_clip, *options, "--export", "ply").status == 0
    (tmp_path / "out" / "export" / "mine.txt").touch()
    assert cli(face_clip, *options).status == 0
    assert [path.name for path in (tmp_path / "out" / "export").iterdir()] == ["mine.txt"]


def test_pictures_of_an_export_are_never_tracked_into_their_own_folder(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out", "--max-frames", "2", "--no-overlay", "--export", "colmap").status == 0
    outcome = cli("out/export/colmap/images", "-o", "out")
    assert outcome.status == 2 and "would overwrite it; choose another folder with -o." in outcome.err


def test_the_time_that_exports_take_is_not_counted_to_the_next_input(cli, face_clip, monkeypatch):
    def dawdle(job):
        time.sleep(3)
        return write_arkit(job)

    monkeypatch.setattr("tracker.export.arkit.write", dawdle)
    cli(face_clip, "--max-frames", "1", "--no-overlay")
    outcome = cli(face_clip, face_clip, "-o", "out", "--max-frames", "1", "--no-overlay", "--export", "arkit")
    assert outcome.status == 0
    _, second = (float(seconds) for seconds in re.findall(r"frames    1 in ([\d.]+) s", outcome.out))
    assert second < 3
