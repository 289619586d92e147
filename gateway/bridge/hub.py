"""The feeds of all sessions that have a socket here."""

import asyncio
from types import TracebackType

import structlog

from gateway.bridge.feed import Feed
from gateway.bridge.frames import Close, CloseCode, ForeignEventError
from gateway.bridge.mailbox import Mailbox
from gateway.bridge.upstream import RefusedError, Upstream

_log = structlog.get_logger(__name__)


class Hub:
    """Opens a feed with a session's first socket and closes it with the last. Use as a context manager."""

    def __init__(self, upstream: Upstream, max_sockets: int) -> None:
        self._upstream = upstream
        self._max_sockets = max_sockets
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._tasks = asyncio.TaskGroup()
        self._closing = False

    async def __aenter__(self) -> "Hub":
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, task in self._feeds.values():
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def join(self, session_id: str, mailbox: Mailbox) -> Feed:
        """Make a socket a member of its session's feed.

        Raises:
            RefusedError: The session has too many sockets, or the process is about to end.
        """
        if self._closing:
            raise RefusedError(Close(CloseCode.GOING_AWAY, "GOING_AWAY"))
        if session_id not in self._feeds:
            feed = Feed(session_id, self._upstream)
            self._feeds[session_id] = (feed, self._tasks.create_task(self._run(session_id, feed)))
        feed = self._feeds[session_id][0]
        if len(feed.members) >= self._max_sockets:
            raise RefusedError(Close(CloseCode.TOO_MANY_SOCKETS, "TOO_MANY_SOCKETS"))
        feed.members.add(mailbox)
        return feed

    def leave(self, session_id: str, feed: Feed, mailbox: Mailbox) -> None:
        """Take a socket out again."""
        feed.leave(mailbox)
        running, task = self._feeds.get(session_id, (None, None))
        if running is feed and task is not None and not feed.members:
            del self._feeds[session_id]
            task.cancel()

    def close(self) -> None:
        """Close every socket because the process ends; take no new ones."""
        self._closing = True
        for feed, _ in self._feeds.values():
            feed.end(Close(CloseCode.GOING_AWAY, "GOING_AWAY"))

    async def _run(self, session_id: str, feed: Feed) -> None:
        close: Close | None = None
        try:
            await feed.run()
        except RefusedError as refused:
            close = refused.close
        except ForeignEventError:
            _log.error("foreign_event")
            close = Close(CloseCode.INTERNAL, "INTERNAL")
        except Exception:  # noqa: BLE001 - one session's fault must not end the others' feeds
            _log.exception("feed_failed")
            close = Close(CloseCode.INTERNAL, "INTERNAL")
        if self._feeds.get(session_id, (None, None))[0] is feed:
            del self._feeds[session_id]
        if close:
            feed.end(close)
