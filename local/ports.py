"""Free ports that stay free: one block of neighbours per running system, below the kernel's own range.

A port that ``bind(0)`` hands out may be gone again when a process is restarted on it, because the kernel also gives it
to outgoing connections. So the ports come from below that range, and a system claims its block by keeping the block's
first port bound: two systems never share one.
"""

import random
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_FIRST, _LAST, _BLOCK = 10_240, 32_768, 16
_ATTEMPTS = 200


class PortTakenError(Exception):
    """Nothing can listen on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is taken")
        self.port = port
        """The port."""


def require_free(port: int, host: str = "127.0.0.1") -> None:
    """Check that a port can be listened on.

    Raises:
        PortTakenError: Another process listens there, or we may not.
    """
    try:
        _bind(host, port).close()
    except OSError as error:
        raise PortTakenError(port) from error


class PortBlock:
    """A claimed block of ports; give it back with ``close`` or by leaving the ``with``."""

    def __init__(self, claim: socket.socket, ports: Iterator[int]) -> None:
        self._claim = claim
        self._ports = ports

    @classmethod
    def claim(cls) -> Self:
        """Claim a block in which every port is free now.

        Raises:
            OSError: No block was found.
        """
        for _ in range(_ATTEMPTS):
            first = random.randrange(_FIRST, _LAST, _BLOCK)
            try:
                claim = _bind("127.0.0.1", first)
            except OSError:
                continue
            # Listening makes the claim visible to every other bind, also one with SO_REUSEADDR.
            claim.listen(1)
            rest = range(first + 1, first + _BLOCK)
            try:
                for port in rest:
                    require_free(port)
            except PortTakenError:
                claim.close()
                continue
            return cls(claim, iter(rest))
        raise OSError("no block of free ports found")

    def pick(self, wanted: int = 0) -> int:
        """Return the wanted port if one is named, else the next of the block.

        Raises:
            PortTakenError: The wanted port is taken.
        """
        if wanted:
            require_free(wanted)
            return wanted
        return next(self._ports)

    def close(self) -> None:
        """Give the block back."""
        self._claim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Connections in TIME_WAIT do not count as taken; a listener does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener
