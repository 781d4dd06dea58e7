"""Archives for tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from random import Random

__all__ = ["NAME", "noise", "tar_of", "zip_of"]

NAME = "shop.zip"


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat."""
    return Random(seed).randbytes(size)


def zip_of(files: dict[str, bytes], *, size: int = 0) -> bytes:
    """A zip file; ``size``: made as long by noise in it."""
    found = _zip(files, None)
    if not size:
        return found
    return _zip(files, size - len(_zip(files, 0)))


def _zip(files: dict[str, bytes], padding: int | None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        if padding is not None:
            archive.writestr(zipfile.ZipInfo("padding"), noise(padding), zipfile.ZIP_STORED)
    return out.getvalue()


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar.gz of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
