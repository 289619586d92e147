"""Wraps the data keys of stored credentials anew, when the key file's first key has changed."""

from typing import Final

from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Database
from services.session.adapters.ledger.sessions import BROKER_TOKEN, EMAIL, PASSWORD
from services.session.adapters.vault import Vault
from services.session.domain.values import SessionKey

_FIELDS: Final = (EMAIL, PASSWORD, BROKER_TOKEN)
_BATCH: Final = 500


async def rewrap_credentials(database: Database, vault: Vault) -> int:
    """Wrap every session's data keys with the vault's current key; returns how many rows changed.

    May be interrupted and repeated at any time. A row that changes meanwhile is left to the next pass.

    Raises:
        SealError: A value was sealed with a key that is not in the key file; those before it are done.
    """
    changed, last = 0, ""
    while rows := await database.read(sql.CREDENTIALS_AFTER, last, _BATCH):
        for row in rows:
            key = SessionKey(row["session_key"])
            old = [bytes(row[field]) for field in _FIELDS]
            new = [vault.rewrap(key, field, sealed) for field, sealed in zip(_FIELDS, old, strict=True)]
            if new != old:
                async with database.transaction() as connection:
                    changed += len(await connection.fetch(sql.REPLACE_CREDENTIALS, key, *new, *old))
        last = rows[-1]["session_key"]
    return changed
