"""A session's login at the broker, made again from its sealed credentials whenever the connection is gone."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from services.session.domain.errors import NotConnectedError, SessionMismatchError, SessionNotFoundError
from services.session.domain.values import Account
from services.session.ports import BrokerGateway, Ledger, SessionRecord, TwoFactor

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Logins:
    """Connects sessions that exist; their first connection is made where they are."""

    def __init__(self, ledger: Ledger, broker: BrokerGateway) -> None:
        self._ledger = ledger
        self._broker = broker

    async def connect(self, record: SessionRecord, two_factor: TwoFactor | None = None) -> Account:
        """Log in with the session's own credentials and account type, or find the standing connection.

        Raises:
            SessionNotFoundError: The credentials are destroyed.
            SessionMismatchError: The login now leads to another balance than the session's: nothing is traded with it.
            ServiceError: As ``BrokerGateway.connect``.
        """
        credentials = await self._ledger.credentials(record.session_key)
        if credentials is None:
            raise SessionNotFoundError
        account, token = await self._broker.connect(
            record.session_key, record.broker, record.account.account_type, credentials, two_factor
        )
        await self._require_own(account, record)
        if token != credentials.broker_token:
            await self._ledger.store_broker_token(record.session_key, token)
        return account

    async def stand(self, record: SessionRecord) -> None:
        """Make sure that the session's connection stands. The credentials are opened only if it does not.

        Raises:
            ServiceError: As ``connect``.
        """
        try:
            account = await self._broker.standing(record.session_key, record.broker, record.account.account_type)
        except NotConnectedError:
            await self.connect(record)
        else:
            await self._require_own(account, record)

    async def _require_own(self, account: Account, record: SessionRecord) -> None:
        if not same_balance(account, record.account):
            _log.error("broker_answered_another_balance", session=record.session_key[:8])
            await self._broker.disconnect(record.session_key, log_out=False)
            raise SessionMismatchError

    async def read(self, record: SessionRecord, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make a call that reads; connect and make it once more if there is no connection."""
        try:
            return await call()
        except NotConnectedError:
            await self.connect(record)
            return await call()


def same_balance(account: Account, expected: Account) -> bool:
    """Tell whether two accounts are one balance of one user: PRACTICE never becomes REAL, nor one user another."""
    return (account.user_id, account.balance_id, account.account_type) == (
        expected.user_id,
        expected.balance_id,
        expected.account_type,
    )
