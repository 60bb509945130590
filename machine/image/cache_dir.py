# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of kernels, $XDG_CACHE_HOME/klpfs: where it is, and how old entries are removed.

The name of an entry has a hash of everything that decides its content, so an entry never changes.
Entries that were not used for a month are removed.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

_KINDS = ("embedded-", "distribution-")
_UNUSED_SECONDS = 30 * 86400


def path() -> Path:
    """Return the cache directory. It may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "klpfs"


def mark_used(entry: Path) -> None:
    """Keep an entry for another month."""
    with suppress(OSError):  # the entry of another user, or a read-only file system
        os.utime(entry)


def remove_unused() -> None:
    """Remove the entries that were not used for a month. Call it after an entry was added."""
    since = time.time() - _UNUSED_SECONDS
    with suppress(OSError):
        for entry in list(path().iterdir()):
            if not entry.name.startswith(_KINDS) or entry.lstat().st_mtime > since:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
