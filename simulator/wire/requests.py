"""What a handler of ``sendMessage`` gets and gives."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from simulator.exchange.accounts import Account
from simulator.platform import Platform
from simulator.wire.bodies import BodyT, read_body
from simulator.wire.connection import Connection
from simulator.wire.frames import Message

DONE: Final = 2000
BAD_REQUEST: Final = 4000


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a logged-in user."""

    platform: Platform
    connection: Connection
    account: Account
    message: Message
    request_id: str
    received: float
    """Unix seconds."""

    def body(self, body_type: type[BodyT]) -> BodyT:
        """Read the body; raises ``BadBodyError``."""
        return read_body(self.message.body, body_type)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.platform.shared.clock()


@dataclass(frozen=True, slots=True)
class Reply:
    """The data frame that follows the acknowledgement."""

    name: str
    msg: Any
    status: int | None = DONE
    after: Callable[[], None] | None = None
    """Called once the frame is on its way: for events that must not overtake it."""


ACK_ONLY: Final = None
"""For methods that are answered by the acknowledgement alone."""

Method = Callable[[Request], Reply | Awaitable[Reply | None] | None]
Methods = Mapping[str, Method]
"""Handlers by method name without its service."""
