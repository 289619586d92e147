"""The root of every service's error tree, free of any transport.

A service draws its own tree in ``domain/errors.py``; ``interceptors.py`` turns a ``ServiceError`` into a gRPC status.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """The canonical status codes a service may answer with (google.rpc.Code)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


Fact = str | int | float | bool | tuple[str, ...]


class ServiceError(Exception):
    """Something a caller can understand and act on.

    Subclasses name the stable ``reason`` (an ``ErrorReason`` of the service's proto without its prefix) and the
    ``code``. The message is for people; whatever varies in it is also in ``facts``. Neither may hold a secret or repeat
    what the caller sent.
    """

    reason: ClassVar[str]
    """Stable word, SCREAMING_SNAKE_CASE."""
    code: ClassVar[Code]
    """Canonical status."""

    def __init__(self, message: str, /, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        """Words for people."""
        self.facts: Mapping[str, Fact] = facts
        """What varies, by name."""


class InternalError(ServiceError):
    """A fault of the service itself; its cause is in the log and nowhere else."""

    reason = "INTERNAL"
    code = Code.INTERNAL


class StoppingError(ServiceError):
    """The process is about to end and did nothing of what it was asked: another one may be asked the same."""

    reason = "UNAVAILABLE"
    code = Code.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the service is being restarted")
