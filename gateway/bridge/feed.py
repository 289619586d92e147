"""One session's live events, fanned out to all of its sockets from one stream."""

import asyncio
from contextlib import aclosing

from gateway.bridge.frames import Close
from gateway.bridge.mailbox import Mailbox
from gateway.bridge.upstream import Upstream


class Feed:
    """Holds one stream of a session, always at "now"; a socket that asks for the past catches up on a stream of its own."""

    def __init__(self, session_id: str, upstream: Upstream) -> None:
        self._session_id = session_id
        self._upstream = upstream
        self._seq: int | None = None
        self._begun = asyncio.Event()
        self._live: set[Mailbox] = set()
        self.members: set[Mailbox] = set()
        """Every socket of the session, also those that catch up."""

    async def run(self) -> None:
        """Fan out until the session is closed.

        Raises:
            RefusedError: There is no such session.
            ForeignEventError: Another session's event came.
        """
        async with aclosing(self._upstream.follow(self._session_id, None)) as frames:
            async for frame in frames:
                if frame.type not in {"candle", "gap"}:
                    self._seq = frame.position
                    self._begun.set()
                for mailbox in self._live:
                    mailbox.offer(frame)

    async def subscribe(self, mailbox: Mailbox, last_seq: int | None) -> None:
        """Fill a mailbox with everything after ``last_seq``, or a snapshot, and join it to the live events.

        Raises:
            RefusedError: The session service refuses that position.
            ForeignEventError: Another session's event came.
        """
        self._live.discard(mailbox)
        mailbox.restart(last_seq)
        if last_seq is None and self._seq is None:
            # The live stream's own first snapshot is still to come.
            self._live.add(mailbox)
            return
        await self._begun.wait()
        if last_seq is None or last_seq != self._seq:
            async with aclosing(self._upstream.follow(self._session_id, last_seq)) as frames:
                async for frame in frames:
                    await mailbox.room()
                    if frame.type == "snapshot":
                        # It stands for all before it, also when the client claimed to be further than the session is.
                        mailbox.cursor = None
                    mailbox.offer(frame)
                    if frame.type != "gap" and self._is_up_to_date(mailbox):
                        break
        self._live.add(mailbox)

    def _is_up_to_date(self, mailbox: Mailbox) -> bool:
        """Whether the live events go on without a hole where the mailbox is; what it has already, it leaves out."""
        return mailbox.cursor is not None and self._seq is not None and mailbox.cursor >= self._seq

    def leave(self, mailbox: Mailbox) -> None:
        """Send a mailbox nothing more."""
        self._live.discard(mailbox)
        self.members.discard(mailbox)

    def end(self, close: Close) -> None:
        """Close every socket."""
        for mailbox in tuple(self.members):
            mailbox.end(close)
