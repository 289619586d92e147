"""Which bots go on when a system starts on a data folder that it has run on before."""

from typing import Final

import asyncpg

_TIMEOUT: Final = 5.0
_RUNNING: Final = """
    SELECT account_type, count(*) FROM sessions WHERE state = 'active' AND bot_status = 'running'
    GROUP BY account_type ORDER BY account_type
"""


async def running_bots(postgres_url: str) -> dict[str, int]:
    """Return how many bots run by the ledger, by the type of their account ("PRACTICE", "REAL").

    Empty if the ledger cannot be asked: then it has died, and is told of elsewhere.
    """
    try:
        connection = await asyncpg.connect(postgres_url, timeout=_TIMEOUT)
        try:
            return {row[0]: row[1] for row in await connection.fetch(_RUNNING, timeout=_TIMEOUT)}
        finally:
            await connection.close(timeout=_TIMEOUT)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return {}
