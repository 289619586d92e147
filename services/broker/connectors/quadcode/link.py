"""What a connector needs of its way to the broker, whoever carries the words.

The conversation is the platform's: calls by method, pushes by name, refusals by status. ``SocketLink`` speaks it itself;
another link may leave that to somebody else and translate.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from services.broker.connectors.quadcode.messages import UNREADABLE
from services.broker.connectors.quadcode.parsing import ParseError
from services.broker.connectors.quadcode.protocol import Answer, Call, Subscription
from services.broker.domain.errors import BrokerUnavailableError
from services.runtime.secret import Secret


class TokenRefusedError(Exception):
    """The broker does not accept the session token."""


class RequestRefusedError(Exception):
    """The broker answered a request with a refusal. Never leaves the connector.

    Attributes:
        status: The reply's status; 4000 if the request was not even routed.
        msg: What the broker sent.
        text: Its words.
    """

    def __init__(self, status: int, msg: msgspec.Raw, text: str) -> None:
        super().__init__(f"refused with status {status}")
        self.status = status
        self.msg = msg
        self.text = text


class LostError(Exception):
    """The connection is gone. Raised by a link's reader, never seen outside of it."""


@dataclass(slots=True)
class FrameCounts:
    """What became of the frames of a process."""

    understood: int = 0
    ignored: int = 0
    """Names we do not use, and answers that nobody waits for any more."""
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a link waits, seconds."""

    connect: float = 10.0
    request: float = 10.0
    silence: float = 15.0
    """Without a tick of the broker's clock for this long the connection counts as lost."""


Handler = Callable[[msgspec.Raw], None]


class Link(ABC):
    """One conversation with the broker, over one connection after another.

    Args:
        counts: The process's counters.
    """

    def __init__(self, counts: FrameCounts) -> None:
        self._counts = counts
        self._handlers: dict[str, Handler] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def handle(self, name: str, handler: Handler) -> None:
        """Give all pushes of a name to a handler. It must not block; what it raises as unreadable is counted."""
        self._handlers[name] = handler

    @property
    def is_open(self) -> bool:
        """Whether the connection is open and logged in."""
        return self._tasks is not None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as this connection lives; it is cancelled when that is lost, perhaps unbegun.

        Raises:
            BrokerUnavailableError: There is no open connection.
        """
        if self._tasks is None:
            work.close()
            raise BrokerUnavailableError("the connection to the broker is down")
        return self._tasks.create_task(work)

    async def live(self, token: Secret, bring_up: Callable[[], Awaitable[None]]) -> None:
        """Live through one connection: open, bring up, and read until it is lost. Returns when it is lost.

        Raises:
            TokenRefusedError: The broker does not accept the token.
            BrokerUnavailableError: The connection did not get as far as being logged in.
            Exception: What ``bring_up`` raised; the connection is closed then.
        """
        async with self._opened(token):
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._tasks = tasks
                    tasks.create_task(self._read_on())
                    await bring_up()
            except BaseExceptionGroup as errors:
                causes = [error for error in errors.exceptions if not isinstance(error, LostError)]
                if causes:
                    raise causes[0] from None
            finally:
                self._end()

    async def _read_on(self) -> None:
        try:
            await self._read()
        finally:
            # At once, before the tasks of this connection have come to their ends: nothing new may begin.
            self._end()

    def _end(self) -> None:
        self._tasks = None
        self._lose()

    def _dispatch(self, name: str, msg: msgspec.Raw) -> None:
        handler = self._handlers.get(name)
        if handler is None:
            self._counts.ignored += 1
            return
        try:
            handler(msg)
        except (*UNREADABLE, ParseError):
            self._counts.malformed += 1
        else:
            self._counts.understood += 1

    @abstractmethod
    def _opened(self, token: Secret) -> AbstractAsyncContextManager[None]:
        """Open a connection with the token, and close it at the end. Raises as ``live``."""

    @abstractmethod
    async def _read(self) -> None:
        """Read until the connection is lost, then raise ``LostError``."""

    @abstractmethod
    def _lose(self) -> None:
        """Nothing that was asked on this connection will be answered any more. Idempotent."""

    @abstractmethod
    def broker_time(self) -> datetime:
        """Return the broker's time of day as best known."""

    @abstractmethod
    async def set_up(self) -> None:
        """On a new connection: renew all subscriptions and wait for the broker's clock.

        Raises:
            BrokerUnavailableError: The broker is silent.
        """

    @abstractmethod
    async def call(self, call: Call) -> msgspec.Raw:
        """Ask the broker something and return what it answers.

        Raises:
            RequestRefusedError: It said no.
            BrokerUnavailableError: The connection is down, goes down, or no answer came in time.
        """

    @abstractmethod
    async def post(self, call: Call, not_after: datetime | None = None) -> asyncio.Future[Answer | None]:
        """Send a request that must not be sent twice, and return where its answer will be, however late.

        The future's result is None once the connection is lost. Only the errors below prove that nothing was sent.

        Args:
            call: What to ask.
            not_after: Nothing is sent at or after this time, our clock.

        Raises:
            SendDeadlinePassedError: ``not_after`` is over; nothing was sent.
            BrokerUnavailableError: The connection is down or congested; nothing was sent.
        """

    @abstractmethod
    async def subscribe(self, subscription: Subscription) -> None:
        """Ask for a stream of pushes, now and after every reconnect. Down: at the next one.

        Raises:
            RequestRefusedError: The broker refuses it; it is forgotten then.
        """

    @abstractmethod
    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop a stream of pushes; returns without the broker's confirmation.

        What is asked after it stays behind it.
        """

    @abstractmethod
    def forget(self, subscription: Subscription) -> None:
        """Do not renew a subscription on the next connection; the broker is not told."""
