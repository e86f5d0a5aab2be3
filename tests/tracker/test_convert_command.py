"""The command that converts tracks: what it writes, what it says, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame.saving import save_flame_pkl
from tests.toy_head import make_toy_head
from tests.tracker.export.tracks import small_track, toy_head_file
from tracker import convert
from tracker.convert import main
from tracker.result import Track


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with a track of two people on the toy head."""
    made = tmp_path / "clip_track"
    made.mkdir()
    small_track(toy_head_file(tmp_path), people=2, frames=3, lost=((0, 1),)).save(made)
    return made


@pytest.fixture
def other(tmp_path) -> Path:
    """Return the file of a head that has the toy head's mesh and a somewhat other shape."""
    head = make_toy_head()
    path = tmp_path / "other.pkl"
    save_flame_pkl(replace(head, template=1.01 * head.template, shape_basis=head.shape_basis[..., :8]), path)
    return path


def test_it_writes_a_track_on_the_other_head(folder, other, capsys):
    assert main([str(folder), "--head", str(other)]) == 0
    out = folder.with_name("clip_track_other")
    track = Track.load(out)
    assert track.head == str(other) and track.head_model.content_hash == track.head_hash
    assert np.array_equal(np.isnan(track.jaw).any(axis=-1), ~Track.load(folder).is_tracked)
    assert track.info["converted_from"]["head"] == str(folder.with_name("toy_flame.pkl"))
    said = capsys.readouterr().out
    assert f"-> {other}" in said and "person 1  face" in said and "mm (95 %)" in said and str(out) in said
    assert sorted(path.name for path in out.iterdir()) == ["track.json", "track.npz"]


def test_the_output_folder_can_be_chosen(folder, other, tmp_path):
    out = tmp_path / "some" / "where"
    assert main([str(folder / "track.npz"), "--head", str(other), "-o", str(out)]) == 0
    assert Track.load(out).num_people == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--head", "commons"], "error: no track at nowhere/track.npz"),
        (["FOLDER", "--head", "absent.pkl"], "error: no such head file: absent.pkl"),
        (["FOLDER", "--head", "OTHER", "-o", "FOLDER"], "holds the track to convert; choose another folder with -o"),
        (["FOLDER", "--head", "OTHER", "-o", "OTHER"], "a file is in its way"),
        (["FOLDER", "--head", "commons"], "too different"),
        (["FOLDER", "--head", "OTHER", "--track-head", "OTHER"], "the track was made with"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, other, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder.parent)
    places = {"FOLDER": str(folder), "OTHER": str(other)}
    assert main([places[each] if each in places else each for each in arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out
    assert not folder.with_name("clip_track_commons").exists()


def test_the_command_line_is_checked(capsys):
    for arguments, message in (
        (["a"], "required: --head"),
        (["a", "--head", "b", "--hed", "c"], "did you mean --head"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_interrupted_it_leaves_the_track_of_an_earlier_conversion(folder, other, capsys, monkeypatch):
    assert main([str(folder), "--head", str(other)]) == 0
    out = folder.with_name("clip_track_other")
    before = (out / "track.npz").read_bytes()

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tracker.conversion.convert_track", interrupted)
    assert main([str(folder), "--head", str(other)]) == 130
    assert "interrupted: nothing was written" in capsys.readouterr().err
    assert (out / "track.npz").read_bytes() == before


def test_a_person_who_is_never_tracked_is_named(folder, other, tmp_path, capsys):
    alone = tmp_path / "alone"
    alone.mkdir()
    small_track(toy_head_file(tmp_path), frames=2, lost=((0, 0), (0, 1))).save(alone)
    assert main([str(alone), "--head", str(other)]) == 0
    assert "never tracked" in capsys.readouterr().out
    assert convert.build_parser().prog == "python -m tracker.convert"
