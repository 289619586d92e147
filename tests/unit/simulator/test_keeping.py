"""Accounts, tokens and the journal."""

from decimal import Decimal
from pathlib import Path

from simulator.brands import BRANDS
from simulator.exchange.accounts import PRACTICE, REAL, Accounts
from simulator.exchange.journal import (
    AccountEntry,
    FileJournal,
    JournalEntry,
    LoginEntry,
    NoJournal,
    OrderEntry,
    ResetEntry,
    order_from_entry,
    order_to_entry,
)
from simulator.exchange.orders import Direction, Order, OrderStatus, Outcome
from simulator.market.assets import OptionKind

IQ, EXNOVA = BRANDS


def an_order() -> Order:
    return Order(
        number=1,
        brand="iq",
        email="a@x",
        user_id=1,
        balance_id=14,
        account_type="PRACTICE",
        request_id="r",
        active_id=76,
        asset="EURUSD-OTC",
        kind=OptionKind.BLITZ,
        direction=Direction.PUT,
        amount=Decimal("1.10"),
        requested_expiry=None,
        received=1.5,
        status=OrderStatus.CLOSED,
        outcome=Outcome.SOLD,
        credit=Decimal("0.07"),
        forced=Outcome.LOST,
    )


def test_accounts_begin_with_the_documented_money() -> None:
    accounts = Accounts(IQ, NoJournal())
    trader, other = accounts.get_or_create("Trader9@x.com "), accounts.get_or_create("user@x.com")
    assert (trader.balance(PRACTICE).amount, trader.balance(REAL).amount) == (Decimal(10_000), Decimal(1_000))
    assert (other.balance(PRACTICE).amount, other.balance(REAL).amount) == (Decimal(10_000), Decimal(0))
    assert accounts.get_or_create("trader9@x.com") is trader


def test_brands_share_no_user_and_no_balance_id() -> None:
    here, there = (Accounts(brand, NoJournal()).get_or_create("a@x.com") for brand in BRANDS)
    assert here.user_id != there.user_id
    assert not set(here.balances) & set(there.balances)


def test_token_belongs_to_one_account_until_it_is_revoked() -> None:
    accounts = Accounts(IQ, NoJournal())
    mine, yours = accounts.get_or_create("a@x"), accounts.get_or_create("b@x")
    token, other = accounts.issue_token(mine), accounts.issue_token(yours)
    assert accounts.of_token(token) is mine
    accounts.revoke(token)
    assert accounts.of_token(token) is None
    assert accounts.of_token(other) is yours
    assert accounts.revoke_all(yours) == 1
    assert accounts.of_token(other) is None
    assert accounts.of_token("") is None


def test_order_survives_the_journal_exactly() -> None:
    order = an_order()
    assert order_from_entry(order_to_entry(order)) == order


def test_journal_gives_back_what_was_appended_in_order(tmp_path: Path) -> None:
    entries: list[JournalEntry] = [
        AccountEntry("iq", "a@x", 1, {14: (4, "10000"), 11: (1, "0")}),
        LoginEntry("iq", "hash", 1),
        OrderEntry("iq", order_to_entry(an_order()), 14, "9998.97"),
        ResetEntry("exnova"),
    ]
    journal = FileJournal(tmp_path / "journal.jsonl")
    for entry in entries:
        journal.append(entry)
    journal.close()
    again = FileJournal(tmp_path / "journal.jsonl")
    assert list(again.entries()) == entries
    again.close()


def test_line_that_a_killed_process_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = FileJournal(path)
    journal.append(ResetEntry("iq"))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"rese')
    again = FileJournal(path)
    again.append(ResetEntry("exnova"))
    assert list(again.entries()) == [ResetEntry("iq"), ResetEntry("exnova")]
    again.close()


def test_journal_holds_no_token(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = FileJournal(path)
    accounts = Accounts(IQ, journal)
    token = accounts.issue_token(accounts.get_or_create("a@x"))
    journal.close()
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
