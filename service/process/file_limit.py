"""The process's limit of open files."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

# More are never used, and some systems allow a billion.
_MOST = 65_536
# Below this, ordinary numbers of callers come near it.
_FEW = 4_096


def raise_file_limit(most: int = _MOST) -> int:
    """Raise the soft limit as far as the hard one lets, to ``most``; returns what it is now."""
    soft, hard = (_finite(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    limit = min(hard, most)
    if soft < limit:
        _, given = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, given))
        log.info("this process may open %d files, no longer %d", limit, soft)
    if (now := max(soft, limit)) < _FEW:
        log.warning(
            "this process may open only %d files, and each connection is one; raise the hard limit "
            "(ulimit -n, LimitNOFILE)",
            now,
        )
    return now


def _finite(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
