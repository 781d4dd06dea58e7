"""What may be unpacked, and where it may land."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.farm.contents import noise, tar_of, zip_of
from tribes.errors import FarmError
from tribes.farm.archives import Limits, check, unpack
from tribes.farm.names import ArchiveName, Kind, entry_path

LIMITS = Limits(unpacked_max_bytes=8 * 2**20, ratio_max=20, entries_max=50)

Unpack = Callable[..., Path]


@pytest.fixture
def unpacked(tmp_path: Path) -> Unpack:
    """Unpacks a content, and returns where; nothing may land beside it."""

    def run(content: bytes, kind: Kind = Kind.ZIP, limits: Limits = LIMITS) -> Path:
        archive, into = tmp_path / "archive", tmp_path / "around" / "into"
        archive.write_bytes(content)
        into.mkdir(parents=True)
        try:
            unpack(archive, kind, into, limits)
        finally:
            assert list(into.parent.iterdir()) == [into], "something landed outside"
            assert sorted(tmp_path.iterdir()) == [archive, into.parent]
        return into

    return run


def test_files_and_directories_are_unpacked(unpacked: Unpack) -> None:
    """As they were, readable by all and written by the owner only."""
    into = unpacked(zip_of({"a.txt": b"one", "lib/b.py": b"two", "./c": b"three", "empty/": b""}))
    assert (into / "a.txt").read_bytes() == b"one"
    assert (into / "lib" / "b.py").read_bytes() == b"two"
    assert (into / "c").read_bytes() == b"three"
    assert (into / "empty").is_dir()
    assert stat.S_IMODE((into / "a.txt").stat().st_mode) & 0o6022 == 0


def test_a_tar_is_unpacked(unpacked: Unpack) -> None:
    """And its set-user-id bits are not."""
    program = tarfile.TarInfo("bin/run")
    program.mode = 0o4777
    into = unpacked(tar_of([(program, b"#!"), (tarfile.TarInfo("x"), noise(70_000))]), Kind.TAR)
    assert (into / "x").read_bytes() == noise(70_000)
    mode = (into / "bin" / "run").stat().st_mode
    assert mode & 0o100
    assert not mode & (stat.S_ISUID | stat.S_IWOTH | stat.S_IWGRP)


_ESCAPES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "//evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:/evil",
    "C:evil",
    "a//b",
    "a/ /b",
    "a./b",
    "con",
    "aux.txt",
    "a/NUL/b",
    "x\x00y",
    "x\ny",
    "a" * 300,
    "/".join("a" * 40),
    "file:stream",
    "",
]


@pytest.mark.parametrize("name", _ESCAPES)
def test_t113_names_cannot_escape(unpacked: Unpack, name: str) -> None:
    """Neither out of a zip nor out of a tar file."""
    with pytest.raises(FarmError):
        entry_path(name)
    if name:
        info = zipfile.ZipInfo("x")
        info.filename = name  # as it is: the constructor would mend it
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(info, b"evil")
        with pytest.raises(FarmError):
            unpacked(out.getvalue())


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:evil"])
def test_t113_names_cannot_escape_from_a_tar(unpacked: Unpack, name: str) -> None:
    """Which has no other rules."""
    with pytest.raises(FarmError):
        unpacked(tar_of([(tarfile.TarInfo(name), b"evil")]), Kind.TAR)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_t113_links_and_devices_are_refused(unpacked: Unpack, kind: bytes) -> None:
    """Also a link that stays inside: what is written through it later would not."""
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "target"
    with pytest.raises(FarmError, match="no file and no directory"):
        unpacked(tar_of([(info, b"")]), Kind.TAR)


def test_t113_a_link_in_a_zip_is_refused(unpacked: Unpack) -> None:
    """It is told by the bits of Unix."""
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(FarmError, match="symbolic link"):
        unpacked(out.getvalue())


@pytest.mark.parametrize(
    "names", [("a", "A"), ("lib/x", "LIB/X"), ("a", "a/b"), ("ä", "a\u0308"), ("x", "./x")]
)
def test_t113_names_that_are_one_file_somewhere_are_refused(
    unpacked: Unpack, names: tuple[str, str]
) -> None:
    """On a file system that tells no case, the second one would replace the first."""
    with pytest.raises(FarmError, match="twice, or is the same"):
        unpacked(zip_of(dict.fromkeys(names, b"x")))


def test_a_bomb_is_refused_by_what_comes_out_of_it(unpacked: Unpack) -> None:
    """Whatever it says of its sizes."""
    bomb = bytearray(zip_of({"zeros": bytes(4 * 2**20)}))
    with pytest.raises(FarmError, match="ratio_max"):
        unpacked(bytes(bomb))


def test_more_than_may_be_unpacked_is_refused(unpacked: Unpack) -> None:
    """Also where nothing is compressed."""
    limits = Limits(unpacked_max_bytes=1000, ratio_max=20, entries_max=50)
    with pytest.raises(FarmError, match="unpacked_max_bytes"):
        unpacked(zip_of({"noise": noise(1001)}), limits=limits)


def test_a_tar_bomb_is_refused(unpacked: Unpack) -> None:
    """Its headers count as well."""
    with pytest.raises(FarmError, match="ratio_max"):
        unpacked(tar_of([(tarfile.TarInfo("zeros"), bytes(6 * 2**20))]), Kind.TAR)


def test_a_long_header_of_a_tar_is_not_read(unpacked: Unpack) -> None:
    """It would be held in memory."""
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    with pytest.raises(FarmError, match="header"):
        unpacked(tar_of([(info, bytes(2 * 2**20))]), Kind.TAR)


def _sparse(kind: str) -> bytes:
    """A sparse file with 2 MiB of map, in the old form of GNU and in that of POSIX."""
    info = tarfile.TarInfo("x")
    if kind == "posix":
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": "0",
            "GNU.sparse.name": "x",
        }
        return info.tobuf(tarfile.PAX_FORMAT) + b"8000000\n" + b"0\n" * 2**20
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[386:512] = b"00000000001 00000000001 " * 4 + b"\1" + bytes(29)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    more = b"00000000001 00000000001 " * 21 + b"\1" + bytes(7)
    return bytes(head) + more * 2**12


@pytest.mark.parametrize("kind", ["posix", "gnu"])
def test_the_map_of_a_sparse_file_is_not_held_in_memory(unpacked: Unpack, kind: str) -> None:
    """It packs a thousandfold, and is a list of numbers, each larger than its digits."""
    large = Limits(unpacked_max_bytes=2**30, ratio_max=10**6, entries_max=50)
    with pytest.raises(FarmError, match="header that is too long"):
        unpacked(gzip.compress(_sparse(kind), 1), Kind.TAR, large)


def test_a_header_that_costs_quadratic_time_is_not_read(unpacked: Unpack) -> None:
    """A megabyte of digits: readers look for a number and a word at every one of them."""
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 2**20 - 512
    with pytest.raises(FarmError, match="header that is too long"):
        unpacked(gzip.compress(head.tobuf() + b"0" * 2**20, 1), Kind.TAR)


def test_too_many_entries_are_refused(unpacked: Unpack) -> None:
    """Empty ones too."""
    with pytest.raises(FarmError, match="entries_max"):
        unpacked(zip_of({f"{i}": b"" for i in range(51)}))


def test_a_directory_of_a_zip_that_is_too_large_is_not_read(unpacked: Unpack) -> None:
    """It would be held in memory."""
    names = {f"{'d' * 200}/{i}": b"" for i in range(2000)}
    with pytest.raises(FarmError, match="entries_max"):
        unpacked(zip_of(names))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("content", [b"", b"x", b"PK\x05\x06", noise(20_480)])
def test_what_is_no_archive_is_refused(unpacked: Unpack, content: bytes, kind: Kind) -> None:
    """Of whatever size."""
    with pytest.raises(FarmError, match="file, or a damaged one"):
        unpacked(content, kind)


@pytest.mark.parametrize("kind", [Kind.ZIP, Kind.TAR])
@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_file_that_is_cut_is_refused(unpacked: Unpack, cut: int, kind: Kind) -> None:
    """The end of a tar.gz has its checksum, that of a zip its directory."""
    content = noise(50_000)
    whole = (
        zip_of({"x": content}) if kind is Kind.ZIP else tar_of([(tarfile.TarInfo("x"), content)])
    )
    with pytest.raises(FarmError, match="or a damaged one"):
        unpacked(whole[:-cut], kind)


def test_a_file_that_is_not_unpacked_is_checked_too(tmp_path: Path) -> None:
    """A wheel will be unpacked by somebody."""
    file = tmp_path / "x.whl"
    file.write_bytes(zip_of({"../evil": b""}))
    with pytest.raises(FarmError, match="leads out"):
        check(file, Kind.FILE, LIMITS)
    file.write_bytes(zip_of({"pkg/__init__.py": b""}))
    check(file, Kind.FILE, LIMITS)


@pytest.mark.parametrize(
    ("text", "app", "target", "kind"),
    [
        ("shop.war", "shop", "shop", Kind.ZIP),
        ("Shop.WAR", "shop", "Shop", Kind.ZIP),
        ("shop##7.zip", "shop##7", "shop##7", Kind.ZIP),
        ("site.tar.gz", "site", "site", Kind.TAR),
        ("a-1.0-py3-none-any.whl", "a-1.0-py3-none-any", "a-1.0-py3-none-any.whl", Kind.FILE),
        ("tool.pyz", "tool", "tool.pyz", Kind.FILE),
    ],
)
def test_names_of_archives(text: str, app: str, target: str, kind: Kind) -> None:
    """What they deploy, and where."""
    name = ArchiveName.parse(text)
    assert (name.app, name.target, name.kind) == (app, target, kind)


@pytest.mark.parametrize(
    "text",
    [
        *("shop", "shop.rar", ".zip", "..zip", ".farm.zip", "../x.zip", "a/b.zip", "a\\b.zip"),
        *("/x.zip", "C:x.zip", "x\0.zip", "x\n.zip", "con.zip", "NUL.tar.gz", "a..b.zip", "a .zip"),
        *("a.zip.zip", "a.pyz.war", "ä.zip", "-x.zip", "a" * 200 + ".zip", "x.zip/", "\u017f.zip"),
    ],
)
def test_t113_names_of_archives_that_are_refused(text: str) -> None:
    """Whatever could lead elsewhere, or is another name somewhere."""
    with pytest.raises(FarmError):
        ArchiveName.parse(text)
