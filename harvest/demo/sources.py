"""The files that the demo sends: of a directory, or what git tracks here, and some with names that are hard to carry."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodel.errors import InvalidUriError
from datamodel.uris import ArtifactUri, Namespace
from harvest.demo.records import DemoError

# One file in so many goes to the namespace that beta learns to want later.
_LATER_EVERY = 4
_SPECIAL = (
    (b"a name with spaces.txt", b"blanks are not allowed in artifact URIs, so they travel as ~20\n"),
    (b"an empty file", b""),
    (b"x" * 220 + b".dat", b"a name of more than 200 bytes\n" * 100),
    (b"not utf-8 \xff\xfe\xe9.bin", bytes(range(256)) * 64),
    (
        "Größe+Maß=½ %2F & #1 ~ ü.txt".encode(),
        b"percent signs, hashes and tildes are just characters of a name\n",
    ),
    (b"deep/er/and/deeper/still.txt", b"directories are part of the name\n"),
)

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory (a submodule)",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A regular file and the URI it travels under."""

    path: Path
    uri: ArtifactUri
    size: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A name that is not sent, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{str(self.path)!r}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Sources:
    """What is sent and what is not: together everything that was found."""

    files: list[Source]
    left_out: list[LeftOut]


def files_below(root: Path, state: Path) -> Iterator[Path]:
    """All that is no directory below a directory, in order, relative; not in `state`, `.git` or a virtual environment.

    Links are named, not followed. Raises DemoError for a directory that cannot be read.
    """
    for parent, directories, names in os.walk(root, onerror=_refuse):
        links = [name for name in directories if Path(parent, name).is_symlink()]
        directories[:] = sorted(name for name in directories if not _is_excluded(Path(parent, name), state))
        for name in sorted([*names, *links]):
            yield Path(parent, name).relative_to(root)


def files_tracked(project: Path, state: Path) -> Iterator[Path]:
    """What git tracks in the project; without git or a repository, all of its files."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=project, capture_output=True, check=False)
    except FileNotFoundError:
        listed = None
    if listed is None or listed.returncode:
        yield from files_below(project, state)
    else:
        yield from (Path(os.fsdecode(name)) for name in sorted(set(listed.stdout.split(b"\0")) - {b""}))


def make_special(directory: Path) -> Iterator[Path]:
    """Write the files with difficult names and name them. Raises OSError."""
    for name, content in _SPECIAL:
        path = Path(os.fsdecode(name))
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
        yield path


def gather(root: Path, names: Iterable[Path], folder: Path, kept: Namespace, later: Namespace) -> Sources:
    """Give every regular file its URI in one of the two namespaces, below `folder`; say why the others have none."""
    found = Sources([], [])
    for number, name in enumerate(names):
        namespace = later if number % _LATER_EVERY == _LATER_EVERY - 1 else kept
        try:
            found.files.append(_source(root / name, namespace, folder / name))
        except InvalidUriError as error:
            found.left_out.append(LeftOut(root / name, error.detail))
        except OSError as error:
            found.left_out.append(LeftOut(root / name, error.strerror or str(error)))
    return found


def _source(path: Path, namespace: Namespace, name: Path) -> Source:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file")
    return Source(path, namespace.uri_for(os.fsencode(name)), status.st_size)


def _refuse(error: OSError) -> None:
    raise DemoError(f"{error.filename!r} cannot be read: {error.strerror}") from error


def _is_excluded(path: Path, state: Path) -> bool:
    # A link is no directory to enter: it is reported as what it is.
    return path.is_symlink() or path.name == ".git" or path.resolve() == state or (path / "pyvenv.cfg").exists()
