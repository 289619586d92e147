"""A bot's settings, and whether its limits allow one more trade."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from services.session.domain.evidence import GateMode, default_gate_mode
from services.session.domain.values import AccountType, InstrumentType


@dataclass(frozen=True, slots=True)
class BotSettings:
    """What a bot was started with, defaults filled in. Absent limits are None: no limit."""

    asset: str = "EURUSD-OTC"
    timeframe: int = 60
    """Candle length, seconds."""
    amount: Decimal = Decimal(1)
    """Stake of each trade, account currency."""
    duration: timedelta = timedelta(minutes=1)
    instrument_type: InstrumentType = InstrumentType.TURBO
    """BLITZ if the user gave seconds."""
    model: str = ""
    """Empty is the default model."""
    max_trades: int | None = None
    """Trades per run."""
    stop_loss: Decimal | None = None
    """Loss per run, positive, account currency."""
    take_profit: Decimal | None = None
    """Profit per run."""
    daily_loss_limit: Decimal | None = None
    """Loss since 00:00 UTC, positive, account currency; holds for manual trades of the session too."""
    max_consecutive_losses: int | None = None
    min_payout: float | None = None
    """Fraction; skip trades below it."""
    gate: GateMode | None = None
    """Whether signals wait for evidence; None if the user did not say: by whose money it is."""

    def gate_mode(self, account_type: AccountType) -> GateMode:
        """Return what holds on an account of that type."""
        return self.gate or default_gate_mode(account_type)


@dataclass(frozen=True, slots=True)
class Usage:
    """What of the limits is used, counted in the ledger."""

    run_trades: int = 0
    """Trades of the run that were sent or may have been."""
    run_profit: Decimal = Decimal(0)
    run_exposure: Decimal = Decimal(0)
    """Stakes of the run's trades that are not settled."""
    daily_profit: Decimal = Decimal(0)
    """Since 00:00 UTC, all trades of the session."""
    exposure: Decimal = Decimal(0)
    """Stakes of all the session's trades that are not settled."""
    open_trades: int = 0
    consecutive_losses: int = 0


@dataclass(frozen=True, slots=True)
class LimitBreach:
    """The limit that forbids a trade."""

    limit: str
    """Its name in the settings."""
    value: float
    used: float


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits that the operator sets for every session, manual trades and bots alike."""

    max_open_trades: int = 100
    max_amount: Decimal = Decimal(20_000)


def breach(
    amount: Decimal, *, bot_run: bool, settings: BotSettings | None, usage: Usage, service: ServiceLimits
) -> LimitBreach | None:
    """Say which limit forbids one more trade of ``amount``, assuming the worst of every trade that is not settled.

    ``settings`` are the session's; its run limits hold for bot trades only (``bot_run``), ``daily_loss_limit`` for all.
    """
    if amount > service.max_amount:
        return LimitBreach("max_amount", float(service.max_amount), float(amount))
    if usage.open_trades >= service.max_open_trades:
        return LimitBreach("max_open_trades", service.max_open_trades, usage.open_trades)
    if settings is None:
        return None
    if settings.daily_loss_limit is not None:
        worst = -(usage.daily_profit - usage.exposure - amount)
        if worst > settings.daily_loss_limit:
            return LimitBreach("daily_loss_limit", float(settings.daily_loss_limit), float(-usage.daily_profit))
    if not bot_run:
        return None
    return _run_breach(amount, settings, usage)


def _run_breach(amount: Decimal, settings: BotSettings, usage: Usage) -> LimitBreach | None:
    if settings.max_trades is not None and usage.run_trades >= settings.max_trades:
        return LimitBreach("max_trades", settings.max_trades, usage.run_trades)
    if settings.stop_loss is not None:
        worst = -(usage.run_profit - usage.run_exposure - amount)
        if worst > settings.stop_loss:
            return LimitBreach("stop_loss", float(settings.stop_loss), float(-usage.run_profit))
    if settings.take_profit is not None and usage.run_profit >= settings.take_profit:
        return LimitBreach("take_profit", float(settings.take_profit), float(usage.run_profit))
    if settings.max_consecutive_losses is not None and usage.consecutive_losses >= settings.max_consecutive_losses:
        return LimitBreach("max_consecutive_losses", settings.max_consecutive_losses, usage.consecutive_losses)
    return None
