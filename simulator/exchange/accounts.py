"""Accounts, their balances and their session tokens, of one brand."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from simulator.brands import Brand
from simulator.exchange.journal import AccountEntry, Journal, LoginEntry

REAL: Final = 1
PRACTICE: Final = 4
"""Balance type ids of the wire."""
PRACTICE_START: Final = Decimal(10_000)
TRADER_REAL_START: Final = Decimal(1_000)


@dataclass(slots=True)
class Balance:
    """Money of one account, USD."""

    id: int
    user_id: int
    type_id: int
    amount: Decimal

    @property
    def account_type(self) -> str:
        """PRACTICE or REAL."""
        return "PRACTICE" if self.type_id == PRACTICE else "REAL"


@dataclass(slots=True)
class Account:
    """A person's account with one brand."""

    email: str
    user_id: int
    balances: dict[int, Balance]
    current_balance_id: int
    """Which balance legacy orders without a balance id are booked on."""

    def balance(self, type_id: int) -> Balance:
        """Return the balance of a type; every account has one of each."""
        return next(balance for balance in self.balances.values() if balance.type_id == type_id)


class Accounts:
    """The accounts of one brand. They come into being at the first login."""

    def __init__(self, brand: Brand, journal: Journal) -> None:
        self._brand = brand
        self._journal = journal
        self._by_email: dict[str, Account] = {}
        self._by_user_id: dict[int, Account] = {}
        self._users_of_tokens: dict[str, int] = {}

    def all(self) -> Iterable[Account]:
        """Return all accounts, oldest first."""
        return self._by_email.values()

    def find(self, email: str) -> Account | None:
        """Return the account of an e-mail address, if it exists."""
        return self._by_email.get(normalise(email))

    def of_user(self, user_id: int) -> Account | None:
        """Return the account with an id, if it exists."""
        return self._by_user_id.get(user_id)

    def get_or_create(self, email: str) -> Account:
        """Return the account of an e-mail address, opening it if there is none."""
        email = normalise(email)
        account = self._by_email.get(email)
        if account is None:
            user_id = self._brand.first_user_id + len(self._by_email)
            real = TRADER_REAL_START if email.startswith("trader") else Decimal(0)
            account = _account(email, user_id, {REAL: real, PRACTICE: PRACTICE_START})
            self._add(account)
            self.record(account)
        return account

    def record(self, account: Account) -> None:
        """Write an account's balances to the journal."""
        balances = {balance.id: (balance.type_id, str(balance.amount)) for balance in account.balances.values()}
        self._journal.append(AccountEntry(self._brand.name, account.email, account.user_id, balances))

    def issue_token(self, account: Account) -> str:
        """Return a new session token (ssid) of an account."""
        token = secrets.token_hex(16)
        hashed = _hash(token)
        self._users_of_tokens[hashed] = account.user_id
        self._journal.append(LoginEntry(self._brand.name, hashed, account.user_id))
        return token

    def of_token(self, token: str) -> Account | None:
        """Return whose token this is, or None if it was never issued or has been revoked."""
        user_id = self._users_of_tokens.get(_hash(token))
        return None if user_id is None else self._by_user_id.get(user_id)

    def revoke(self, token: str) -> None:
        """Make a token worthless."""
        self._revoke_hash(_hash(token))

    def revoke_all(self, account: Account) -> int:
        """Make all tokens of an account worthless and return how many there were."""
        hashes = [hashed for hashed, user_id in self._users_of_tokens.items() if user_id == account.user_id]
        for hashed in hashes:
            self._revoke_hash(hashed)
        return len(hashes)

    def restore_account(self, entry: AccountEntry) -> None:
        """Take an account over from the journal."""
        amounts = {type_id: Decimal(amount) for type_id, amount in entry.balances.values()}
        self._add(_account(entry.email, entry.user_id, amounts))

    def restore_login(self, entry: LoginEntry) -> None:
        """Take an issued or revoked token over from the journal."""
        if entry.user_id is None:
            self._users_of_tokens.pop(entry.token_hash, None)
        else:
            self._users_of_tokens[entry.token_hash] = entry.user_id

    def clear(self) -> None:
        """Forget everybody."""
        self._by_email.clear()
        self._by_user_id.clear()
        self._users_of_tokens.clear()

    def _add(self, account: Account) -> None:
        self._by_email[account.email] = account
        self._by_user_id[account.user_id] = account

    def _revoke_hash(self, hashed: str) -> None:
        if self._users_of_tokens.pop(hashed, None) is not None:
            self._journal.append(LoginEntry(self._brand.name, hashed, None))


def normalise(email: str) -> str:
    """Return the form of an address under which accounts are kept."""
    return email.strip().lower()


def _account(email: str, user_id: int, amounts: dict[int, Decimal]) -> Account:
    balances = {
        user_id * 10 + type_id: Balance(user_id * 10 + type_id, user_id, type_id, amount)
        for type_id, amount in amounts.items()
    }
    return Account(email, user_id, balances, current_balance_id=user_id * 10 + PRACTICE)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
