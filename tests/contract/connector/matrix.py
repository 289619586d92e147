"""The acceptance matrix of a connector. A case's number is its name; numbers are never used again.

TC-1xx account · TC-2xx market · TC-3xx orders · TC-4xx settlement · TC-5xx life, a module each.
"""

from typing import Any

from services.broker.domain.values import (
    InstrumentType,
)
from tests.contract.connector.conftest import Bench

USER = "trader@example.com"
KINDS = [
    (InstrumentType.TURBO, 60),
    (InstrumentType.BINARY, 900),
    (InstrumentType.BLITZ, 60),
    (InstrumentType.DIGITAL, 60),
]


async def only(bench: Bench, email: str = USER) -> dict[str, Any]:
    """Return the one order that the broker has of a user."""
    (order,) = [o for o in await bench.world.ledger(email) if o["booked_time"] is not None]
    return order
