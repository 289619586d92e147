"""The acceptance matrix: TC-1xx, account."""

from decimal import Decimal

import pytest

from services.broker.domain.errors import (
    InvalidCredentialsError,
    NotConnectedError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.broker.domain.values import (
    Account,
    AccountType,
    ConnectionState,
    TwoFactor,
)
from services.runtime.secret import Secret
from tests.contract.connector.conftest import Bench
from tests.contract.connector.matrix import USER
from tests.support.brokers import an_order
from tests.support.eventually import eventually


@pytest.mark.parametrize(("account_type", "balance"), [(AccountType.PRACTICE, "10000"), (AccountType.REAL, "1000")])
async def test_tc101_connects_to_the_balance_of_the_wanted_type(
    bench: Bench, account_type: AccountType, balance: str
) -> None:
    connector = await bench.connected(account_type=account_type)

    (known,) = [a for a in await bench.world.accounts(USER) if a["broker"] == bench.broker]
    account = connector.account
    assert (account.broker, account.account_type, account.currency) == (bench.broker, account_type, "USD")
    assert account.balance == Decimal(balance)
    assert account.user_id == known["user_id"]
    assert account.balance_id == known["balances"][account_type]["id"]
    assert connector.state is ConnectionState.CONNECTED


async def test_tc102_wrong_password_is_refused_and_not_asked_again(bench: Bench) -> None:
    for _ in range(3):
        with pytest.raises(InvalidCredentialsError):
            await bench.connected(password="wrong")
    # The broker itself counts: five would be throttled. The right password still goes through.
    assert (await bench.connected()).state is ConnectionState.CONNECTED


async def test_tc103_token_is_used_instead_of_a_login(bench: Bench) -> None:
    first = await bench.connected()
    token = first.broker_token
    await first.close(NotConnectedError())
    await bench.world.fault("login_throttled", email=USER)

    again = await bench.connected(token=token)

    assert again.broker_token == token


async def test_tc104_a_token_that_is_over_costs_one_login(bench: Bench) -> None:
    connector = await bench.connected(token=Secret("0" * 32))
    assert connector.state is ConnectionState.CONNECTED
    assert connector.broker_token != Secret("0" * 32)


async def test_tc105_second_factor_is_asked_for_and_proven(bench: Bench) -> None:
    with pytest.raises(TwoFactorRequiredError) as wanted:
        await bench.connected("twofa@example.com")
    assert "sms" in wanted.value.facts["methods"]  # type: ignore[operator]

    proof = TwoFactor(Secret(str(wanted.value.facts["challenge"])), "sms", Secret(""))
    with pytest.raises(TwoFactorRequiredError) as sent:
        await bench.connected("twofa@example.com", two_factor=proof)

    proof = TwoFactor(Secret(str(sent.value.facts["challenge"])), "sms", Secret("123456"))
    connector = await bench.connected("twofa@example.com", two_factor=proof)
    assert connector.account.balance == 10_000


async def test_tc106_wrong_second_factor_is_told_apart(bench: Bench) -> None:
    with pytest.raises(TwoFactorRequiredError) as wanted:
        await bench.connected("twofa@example.com")
    proof = TwoFactor(Secret(str(wanted.value.facts["challenge"])), "email", Secret("000000"))
    with pytest.raises(TwoFactorInvalidError):
        await bench.connected("twofa@example.com", two_factor=proof)


async def test_tc107_account_is_read_anew(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.set_balance(USER, "42.5", bench.broker)
    assert (await connector.get_account()).balance == Decimal("42.5")


async def test_tc108_watching_begins_with_state_and_account(bench: Bench) -> None:
    connector = await bench.connected()
    stream = connector.watch_account()
    assert await anext(stream) is ConnectionState.CONNECTED
    assert await anext(stream) == connector.account
    await stream.aclose()  # type: ignore[attr-defined]


async def test_tc109_balance_changes_are_pushed(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    await connector.place_order(an_order(amount="2.50"))

    async def paid() -> bool:
        return any(isinstance(e, Account) and e.balance == Decimal("9997.5") for e in watcher.events)

    await eventually(paid)
    await watcher.stop()


async def test_tc110_brands_share_no_accounts(bench: Bench) -> None:
    here = await bench.connected()
    there = await bench.world.connected(USER, broker=next(b for b in type(bench.broker) if b is not bench.broker))
    assert here.account.user_id != there.account.user_id
    assert here.account.balance_id != there.account.balance_id
