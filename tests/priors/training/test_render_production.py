from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flame.errors import InputError
from priors.training.render.__main__ import main
from priors.training.render.production import RenderOptions, render_shards
from priors.training.shards import INDEX_NAME, ShardIndex, ShardReader


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RenderOptions:
    out = tmp_path_factory.mktemp("data") / "one"
    options = RenderOptions(out, count=5, image_px=64, labels_px=32, seed=4, samples_per_shard=2)
    render_shards(options)
    return options


def test_a_folder_holds_what_was_asked_for(options: RenderOptions):
    reader = ShardReader(options.out)
    reader.check()
    assert len(reader) == 5 and [shard.count for shard in reader.index.shards] == [2, 2, 1]
    image, labels, meta = reader.read(3)
    assert image.shape == (64, 64, 3) and labels.kind.shape == (32, 32) and labels.valid.any()
    assert meta["seed"] == [4, 3] and meta["head_hash"] == reader.index.head_hash
    assert "no photograph" in reader.index.note and "terms" in reader.index.note


def test_content_does_not_depend_on_the_number_of_processes(options: RenderOptions, tmp_path: Path):
    told: list[int] = []
    index = render_shards(replace(options, out=tmp_path / "two", jobs=2), told.append)
    assert index.shards == ShardReader(options.out).index.shards
    assert sum(told) == 5


def test_an_interrupted_run_is_usable_and_continues(options: RenderOptions, tmp_path: Path):
    out, done = tmp_path / "stopped", 0

    def stop(count: int) -> None:
        nonlocal done
        done += count
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_shards(replace(options, out=out), stop)
    assert len(ShardReader(out)) == 2
    assert sorted(path.name for path in out.iterdir()) == [INDEX_NAME, "shard-000000.tar"]
    (out / "shard-000001.tar.99.part").write_bytes(b"left by a killed process")
    stamp = (out / "shard-000000.tar").stat().st_mtime_ns
    told: list[int] = []
    index = render_shards(replace(options, out=out), told.append)
    assert told[0] == 2 and sum(told) == 5
    assert index.shards == ShardReader(options.out).index.shards
    assert (out / "shard-000000.tar").stat().st_mtime_ns == stamp
    assert not list(out.glob("*.part"))


def test_pictures_of_another_renderer_are_not_continued(options: RenderOptions, tmp_path: Path):
    index = ShardIndex.read(options.out)
    version = index.configuration["renderer"]
    older = replace(index, configuration={**index.configuration, "renderer": version - 1}, shards=())
    older.write(tmp_path)
    with pytest.raises(InputError, match=f"holds data of renderer {version - 1}, not {version}; choose another folder"):
        render_shards(replace(options, out=tmp_path))


def test_users_errors_are_one_line(options: RenderOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match="holds data of seed 4, not 5"):
        render_shards(replace(options, seed=5))
    with pytest.raises(InputError, match="no multiple"):
        render_shards(replace(options, labels_px=48))
    with pytest.raises(InputError, match="count is 0; 1 is the least"):
        render_shards(replace(options, count=0))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        render_shards(replace(options, out=tmp_path / "file" / "below"))
    assert main(["--out", str(tmp_path / "x"), "--size", "64", "--labels", "3"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1


def test_the_command_line_sums_up(options: RenderOptions, capsys: pytest.CaptureFixture[str]):
    arguments = ["--out", str(options.out), "--count", "5", "--size", "64", "--labels", "32", "--seed", "4"]
    assert main([*arguments, "--per-shard", "2"]) == 0
    assert "5 pictures of 64 px, labels of 32 px, 3 shards" in capsys.readouterr().out
