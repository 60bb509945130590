# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of kernels from one mount to the next: $XDG_CACHE_HOME/klpfs.

Names there have a hash of all that goes into what they name, so nothing ever changes, and every new version
of something is something else. What nobody has used for a month goes.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

_KINDS = ("embedded-", "distribution-")
_UNUSED_SECONDS = 30 * 86400


def cache_directory() -> Path:
    """Where kernels are kept once they are built or taken apart."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "klpfs"


def use(path: Path) -> None:
    """It is used: keep it for another month."""
    with suppress(OSError):  # somebody else's, or on a file system that is read-only
        os.utime(path)


def forget_unused() -> None:
    """Remove what was not used for long; best called when something new was kept."""
    since = time.time() - _UNUSED_SECONDS
    with suppress(OSError):
        for path in list(cache_directory().iterdir()):
            if not path.name.startswith(_KINDS) or path.lstat().st_mtime > since:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
