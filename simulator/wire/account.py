"""Methods about the user: profile and balances."""

from decimal import Decimal
from typing import Any, Final

from simulator.exchange.accounts import PRACTICE, Account, Balance
from simulator.exchange.orders import CENT
from simulator.wire.bodies import Nothing, WithBalance, WithBalanceTypes
from simulator.wire.events import CURRENCY
from simulator.wire.requests import ACK_ONLY, BAD_REQUEST, Methods, Reply, Request

MARGINAL_FIELDS: Final = (
    "cash",
    "bonus",
    "pnl",
    "pnl_net",
    "equity",
    "margin",
    "available",
    "swap",
    "dividends",
    "margin_level",
    "stop_out_level",
)


def balance_shape(balance: Balance) -> dict[str, Any]:
    """Shape a balance."""
    return {
        "id": balance.id,
        "user_id": balance.user_id,
        "type": balance.type_id,
        "amount": balance.amount,
        "enrolled_amount": balance.amount,
        "enrolled_sum_amount": balance.amount,
        "bonus_amount": 0,
        "hold_amount": 0,
        "orders_amount": 0,
        "auth_amount": 0,
        "equivalent": 0,
        "currency": CURRENCY,
        "tournament_id": None,
        "tournament_name": None,
        "is_fiat": True,
        "is_marginal": False,
        "has_deposits": balance.type_id != PRACTICE and balance.amount > 0,
    }


def profile_shape(account: Account, company_id: int, *, with_balances: bool) -> dict[str, Any]:
    """Shape a profile; the legacy push has the balances in it, the modern reply an empty list."""
    current = account.balances[account.current_balance_id]
    first, _, _ = account.email.partition("@")
    return {
        "user_id": account.user_id,
        "id": account.user_id,
        "email": account.email,
        "first_name": first,
        "last_name": "Simulated",
        "name": f"{first} Simulated",
        "nickname": first,
        "balance": current.amount,
        "balance_id": current.id,
        "balance_type": current.type_id,
        "balances": [balance_shape(b) for b in account.balances.values()] if with_balances else [],
        "currency": CURRENCY,
        "currency_id": 5,
        "currency_char": "$",
        "mask": "$%s",
        "group_id": 191,
        "user_group": "Default",
        "country_id": 30,
        "locale": "en_US",
        "tz": "UTC",
        "tz_offset": 0,
        "skey": f"{account.user_id:032x}",
        "site_id": 1,
        "company_id": company_id,
        "demo": 0,
        "is_activated": True,
        "kyc_confirmed": True,
        "trade_restricted": False,
        "account_status": "NONE",
        "money": {"deposit": {"min": 0, "max": 0}, "withdraw": {"min": 0, "max": 0}},
        "messages": 0,
    }


def api_result(result: Any) -> dict[str, Any]:
    """Wrap a result as the site's own API does."""
    return {"isSuccessful": True, "message": [], "result": result}


def get_profile(request: Request) -> Reply:
    """``core.get-profile``."""
    profile = profile_shape(request.account, request.platform.brand.company_id, with_balances=False)
    return Reply("profile", api_result(profile), status=0)


def _balances(request: Request) -> list[dict[str, Any]]:
    types = request.body(WithBalanceTypes).types_ids
    wanted = [b for b in request.account.balances.values() if types is None or b.type_id in types]
    return [balance_shape(balance) for balance in wanted]


def get_balances(request: Request) -> Reply:
    """``get-balances``."""
    return Reply("balances", _balances(request))


def get_available_balances(request: Request) -> Reply:
    """``balances.get-available-balances``."""
    return Reply("available-balances", _balances(request))


def get_marginal_balance(request: Request) -> Reply:
    """``get-marginal-balance``: there is no margin trading here."""
    return Reply(
        "marginal-balance", {"id": request.body(WithBalance).user_balance_id} | dict.fromkeys(MARGINAL_FIELDS, "0")
    )


def reset_training_balance(request: Request) -> Reply:
    """``reset-training-balance``, without a body or with balance and amount."""
    body = request.body(WithBalance)
    balance = request.account.balance(PRACTICE)
    if body.user_balance_id not in (None, balance.id) or not Decimal(0) <= body.amount <= Decimal(1_000_000):
        return Reply("training-balance-reset", {"message": "Balance not found."}, BAD_REQUEST)
    exchange = request.platform.exchange
    return Reply(
        "training-balance-reset",
        {"isSuccessful": True},
        after=lambda: exchange.reset_practice(balance, body.amount.quantize(CENT)),
    )


def change_balance(request: Request) -> Reply:
    """``change-balance``: matters only to legacy orders, which name no balance."""
    if select_balance(request.account, request.body(WithBalance).balance_id):
        return Reply("change-balance", {"isSuccessful": True})
    return Reply("change-balance", {"message": "Balance not found."}, BAD_REQUEST)


def select_balance(account: Account, balance_id: int | None) -> bool:
    """Make a balance the current one; False if it is not the account's."""
    if balance_id not in account.balances or balance_id is None:
        return False
    account.current_balance_id = balance_id
    return True


def set_user_settings(request: Request) -> Reply:
    """``set-user-settings``: kept nowhere."""
    request.body(Nothing)
    return Reply("set-user-settings-reply", {"isSuccessful": True})


def subscribe_balance_changed(_request: Request) -> None:
    """``marginal-portfolio.subscribe-balance-changed``: acknowledged, there is nothing to send."""
    return ACK_ONLY


METHODS: Final[Methods] = {
    "get-profile": get_profile,
    "get-balances": get_balances,
    "get-available-balances": get_available_balances,
    "get-marginal-balance": get_marginal_balance,
    "reset-training-balance": reset_training_balance,
    "change-balance": change_balance,
    "set-user-settings": set_user_settings,
    "subscribe-balance-changed": subscribe_balance_changed,
}
