"""What the demo finds to send: everything regular, nothing skipped in silence."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from datamodel.uris import Namespace
from harvest.demo import sources
from harvest.demo.records import DemoError

KEPT, LATER = Namespace.parse("demo:kept/"), Namespace.parse("demo:later/")
FOLDER = Path("files")


def found_in(directory: Path, state: Path) -> sources.Sources:
    return sources.gather(directory, sources.files_below(directory, state), FOLDER, KEPT, LATER)


def test_every_regular_file_is_sent_but_state_git_and_virtual_environments(tmp_path: Path) -> None:
    for name in ("a", "sub/b", ".hidden", ".git/config", "env/pyvenv.cfg", "env/lib/c", "state/lock", "sub/state/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = found_in(tmp_path, tmp_path / "state")
    assert {str(source.path.relative_to(tmp_path)) for source in found.files} == {
        "a",
        "sub/b",
        ".hidden",
        "sub/state/d",
    }
    assert not found.left_out


def test_what_is_no_regular_file_is_left_out_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "link to a directory").symlink_to("directory")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    found = found_in(tmp_path, tmp_path / "state")
    assert [source.path.name for source in found.files] == ["file"]
    reasons = {left_out.path.name: left_out.reason.partition(",")[0] for left_out in found.left_out}
    assert reasons == {
        "link": "a symbolic link",
        "dangling": "a symbolic link",
        "link to a directory": "a symbolic link",
        "pipe": "a pipe",
        "socket": "a socket",
    }


def test_a_name_too_long_for_a_uri_is_left_out_with_its_reason(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["d" * 200] * 3)
    directory.mkdir(parents=True)
    (directory / "file").write_text("content")
    found = found_in(tmp_path, tmp_path / "state")
    assert not found.files
    assert "at most 512" in str(found.left_out[0])


def test_a_file_that_vanished_is_left_out_with_its_reason(tmp_path: Path) -> None:
    found = sources.gather(tmp_path, [Path("gone")], FOLDER, KEPT, LATER)
    assert [left_out.reason for left_out in found.left_out] == ["No such file or directory"]


def test_difficult_names_are_made_and_their_uris_lead_back_to_them(tmp_path: Path) -> None:
    names = list(sources.make_special(tmp_path))
    found = sources.gather(tmp_path, names, FOLDER, KEPT, LATER)
    assert len(found.files) == len(names) == 6
    assert not found.left_out
    for source in found.files:
        namespace = KEPT if source.uri in KEPT else LATER
        assert namespace.path_of(source.uri) == os.fsencode(FOLDER / source.path.relative_to(tmp_path))
    sizes = {source.size for source in found.files}
    assert 0 in sizes
    assert any(len(os.fsencode(source.path.name)) > 200 for source in found.files)


def test_every_fourth_file_is_for_later(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / str(number)).touch()
    found = found_in(tmp_path, tmp_path / "state")
    assert [source.path.name for source in found.files if source.uri in LATER] == ["3", "7"]


def test_without_a_repository_all_files_are_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    assert list(sources.files_tracked(tmp_path, tmp_path / "state")) == [Path("file")]


def test_only_what_git_tracks_is_taken_from_a_repository(tmp_path: Path) -> None:
    for name in ("tracked", "untracked", "with a blank"):
        (tmp_path / name).write_text(name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "tracked", "with a blank"], cwd=tmp_path, check=True)
    assert list(sources.files_tracked(tmp_path, tmp_path / "state")) == [Path("tracked"), Path("with a blank")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
def test_a_directory_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DemoError, match="closed' cannot be read: Permission denied"):
        list(sources.files_below(tmp_path, tmp_path / "state"))
