"""What the adapters of live state say while Redis is away."""

from typing import Final

import structlog
from redis.exceptions import RedisError

REDIS_AWAY: Final = (RedisError, OSError)
"""What a call raises when Redis is away, still loading, full, or talks nonsense."""

_log = structlog.get_logger(__name__)


class Presence:
    """Says once that Redis went away, and once that it is back."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._here = True

    @property
    def is_away(self) -> bool:
        """Whether the last call failed."""
        return not self._here

    def here(self) -> None:
        """Note a call that worked."""
        if not self._here:
            _log.info("redis_back", what=self._what)
        self._here = True

    def away(self, error: Exception) -> None:
        """Note a call that failed."""
        if self._here:
            _log.warning("redis_away", what=self._what, error=type(error).__name__)
        self._here = False
