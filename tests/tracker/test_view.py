"""The viewer's command and its handle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from flame.errors import AssetMissingError, InputError
from tests.tracker.export.tracks import small_track
from tracker.view import main, view


@pytest.fixture
def folder(tmp_path):
    small_track(frames=3).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no track at nowhere"),
        (["FOLDER", "--port", "70000"], "--port 70000: it must be from 0"),
        (["FOLDER", "--host", "203.0.113.9"], "--host 203.0.113.9: not an address of this machine"),
        (["FOLDER", "--host", "a..b"], "--host a..b: not an address of this machine"),
        (["FOLDER", "--host", ""], "--host is empty; use 127.0.0.1"),
        (["FOLDER", "--source", "gone.mp4"], "--source gone.mp4: no such file"),
        (["FOLDER", "FOLDER", "--source", __file__], "--source names one clip, but there are 2 folders"),
        (["FOLDER", "--head", "no.pkl"], "no such head file: no.pkl"),
        (["FOLDER", "--prot", "1"], "did you mean --port?"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, words):
    filled = [str(folder) if each == "FOLDER" else each for each in arguments]
    try:
        status = main([*filled, "--no-browser"])
    except SystemExit as error:
        status = error.code
    message = capsys.readouterr().err
    assert status == 2
    assert message.startswith("error: ") and message.count("\n") == 1
    assert words in message


def test_a_port_in_use_is_told(folder, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main([str(folder), "--no-browser", "--port", str(port)]) == 2
    assert f"--port {port}: cannot be used" in capsys.readouterr().err


def test_ctrl_c_ends_the_command_and_frees_the_port(folder):
    command = [sys.executable, "-m", "tracker.view", str(folder), "--no-browser", "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Tests that run in a shell's background ignore Ctrl-C, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"<html" in answer.read(2000).lower()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out.strip() == "viewer closed"
    assert error == ""


def test_a_missing_module_is_told(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main([str(folder), "--no-browser", "--port", "0"]) == 2
    assert "error: the viewer needs the Python module viser" in capsys.readouterr().err


def test_the_handle_plays_and_edits(folder):
    with view(folder, port=0, browser=False) as viewer:
        player = viewer.player
        assert viewer.url.endswith(str(viewer.port))
        player.seek(-1)
        assert player.frame == 2
        player.step(5)
        assert player.frame == 2
        with pytest.raises(InputError, match="no control 'jawOpem'"):
            player.edit("jawOpem", 1.0)
        with pytest.raises(InputError, match="surface 'gold' is not known; allowed: clay, texture"):
            player.set_look(surface="gold")
        with pytest.raises(InputError, match="looks have no shine"):
            player.set_look(shine=1)
        with pytest.raises(InputError, match="there is no person 1; the track has 1, counted from 0"):
            player.edit("jaw.x", 1.0, 1)
        with pytest.raises(InputError, match="no person -1"):
            player.set_visible(-1, False)
        with pytest.raises(InputError, match="no person 1"):
            player.fix_to(1)
        player.edit("jaw.x", 10.0)
        assert player.edits.names(0) == ("jaw.x",)


def test_several_folders_are_chosen_between(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    small_track(frames=5, people=2).save(other)
    with view([folder, other], port=0, browser=False) as viewer:
        assert len(viewer.player.clip.track) == 3
        viewer.open(1)
        assert len(viewer.player.clip.track) == 5
        viewer.open(0)
        assert viewer.player.clip.track.num_people == 1


def test_a_track_can_be_given_itself_and_a_missing_one_is_told(tmp_path):
    with view(small_track(frames=2), port=0, browser=False) as viewer:
        viewer.player.play()
        assert viewer.player.is_playing
    with pytest.raises(AssetMissingError, match="no track at"):
        view(tmp_path, port=0, browser=False)
