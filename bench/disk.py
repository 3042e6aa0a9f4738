"""Files that appear whole or not at all, and errors that say what the disk wants."""

import contextlib
import errno
import hashlib
import os
import platform
import time
from pathlib import Path

from bench.errors import StorageError

FOREIGN_LEFTOVER_S = 3600.0
"""A half-written file of another host is an orphan after this long."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file and make it durable before its name appears.

    Raises:
        StorageError: the disk is full or the place cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_directory(path.parent)
    except OSError as err:
        raise unwritable(err, path) from err


def remove_orphans(directory: Path) -> None:
    """Remove what processes that are gone had half written."""
    for temporary in directory.glob(".*.tmp"):
        if _is_orphan(temporary):
            temporary.unlink(missing_ok=True)


def unwritable(err: OSError, path: Path) -> StorageError:
    """The error for a user, with the cure that fits."""
    if err.errno in _FULL:
        return StorageError(
            f"{path} cannot be written: {err.strerror}",
            expected="free space on that disk; what was saved before is intact",
            try_="free some space, then ena-bench run --resume with the same run directory",
        )
    return StorageError(
        f"{path} cannot be written: {err.strerror}",
        expected="a place where files can be created",
        try_="-o with another path, such as -o runs/another",
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as err:
        # some network file systems keep names durable by themselves and refuse
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_orphan(temporary: Path) -> bool:
    host, _, pid = temporary.name.removesuffix(".tmp").rpartition(".")[2].partition("-")
    try:
        if host == _host() and pid.isdecimal():
            os.kill(int(pid), 0)
            return False
        return time.time() - temporary.stat().st_mtime > FOREIGN_LEFTOVER_S
    except ProcessLookupError:
        return True
    except (PermissionError, FileNotFoundError):
        return False


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
