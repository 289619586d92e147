"""What waits to be sent to one socket: bounded, in order, nothing twice, only the newest of each candle."""

import asyncio
from collections import deque

from gateway.bridge.frames import Close, CloseCode, Frame


class Mailbox:
    """The frames of one socket, from whoever has them to the task that sends them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Frame | Close | str] = deque()
        self._candles: dict[str, Frame] = {}
        self._held: list[str] = []
        """Texts that wait for the snapshot, which is always the first frame of a new socket."""
        self._filled = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.cursor: int | None = None
        """The seq that the socket has reached with what was put in; None before its first snapshot."""
        self.ended: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        """Set when the socket must close, whatever still waits."""

    def offer(self, frame: Frame) -> None:
        """Put a frame in, unless the socket is past it. A socket that does not keep up is ended."""
        if frame.type == "candle":
            if frame.key not in self._candles:
                self._put(frame)
            self._candles[frame.key] = frame
            return
        if frame.type == "snapshot":
            if self.cursor is not None and frame.position <= self.cursor:
                return
        elif self.cursor is None or frame.position <= self.cursor:
            return
        # After a gap comes the snapshot that closes it, so the gap itself moves nobody on.
        if frame.type != "gap":
            self.cursor = frame.position
        self._put(frame)
        self._release()
        if frame.close:
            self._put(frame.close)

    def say(self, text: str) -> None:
        """Put in a text that is no event; it goes behind the first frame."""
        if self.cursor is not None:
            self._put(text)
        elif len(self._held) < self._limit:
            self._held.append(text)

    def end(self, close: Close) -> None:
        """Close the socket now; the first reason wins."""
        if not self.ended.done():
            self.ended.set_result(close)

    def restart(self, cursor: int | None) -> None:
        """Forget what waits and go on after ``cursor``."""
        self._waiting.clear()
        self._candles.clear()
        self._filled.clear()
        self._roomy.set()
        self.cursor = cursor
        if cursor is not None:
            self._release()

    async def room(self) -> None:
        """Wait until at most half of the limit waits."""
        await self._roomy.wait()

    async def take(self) -> str | Close:
        """Wait for the next text to send; a ``Close`` comes after everything before it was taken."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        item = self._waiting.popleft()
        if len(self._waiting) <= self._limit // 2:
            self._roomy.set()
        if isinstance(item, Frame):
            return self._candles.pop(item.key).text if item.type == "candle" else item.text
        return item

    def _release(self) -> None:
        held, self._held = self._held, []
        for text in held:
            self._put(text)

    def _put(self, item: Frame | Close | str) -> None:
        if len(self._waiting) >= self._limit:
            self.end(Close(CloseCode.CONSUMER_TOO_SLOW, "CONSUMER_TOO_SLOW"))
            return
        self._waiting.append(item)
        if len(self._waiting) > self._limit // 2:
            self._roomy.clear()
        self._filled.set()
