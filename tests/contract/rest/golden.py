"""One request for every call of the contract, with an answer full of values and one full of zeros."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from tradebot.session.v1 import market_pb2, model_pb2, status_pb2, trade_pb2
from tradebot.session.v1 import session_service_pb2 as pb

SESSION = "0b0e8f0a-8a7c-4a57-9a3e-2f0f4e4f2b61"
TRADE_ID = "9d1f9f38-0a55-4f0b-8a39-54d1b0a4c6ae"


@dataclass(frozen=True, slots=True)
class Golden:
    """A call as users make it."""

    rpc: str
    method: str
    target: str
    response: Message
    """A telling answer."""
    fields: frozenset[str]
    """What the contract says the answer holds, also when all of it is zero."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What must arrive at the service."""
    body: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _time(second: int) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(datetime(2026, 11, 24, 5, 0, second, 250_000, UTC))
    return time


TRADE = trade_pb2.Trade(
    success=True,
    trade_id=TRADE_ID,
    client_request_id="r-1",
    status="open",
    asset="EURUSD-OTC",
    direction="call",
    instrument_type="blitz",
    amount=12.34,
    currency="USD",
    duration_seconds=5,
    payout_rate=0.87,
    entry_price=1.08123,
    create_time=_time(0),
    open_time=_time(1),
    expiry_time=_time(6),
    account_type="PRACTICE",
    broker="iq",
    source="manual",
)
SETTINGS = status_pb2.BotSettings(
    asset="EURUSD-OTC", timeframe=60, amount=1, duration=1, stop_loss=20.5, evidence_gate="on"
)
STATUS = status_pb2.Status(
    success=True,
    session_id=SESSION,
    broker="iq",
    account_type="REAL",
    connected=True,
    running=True,
    status="running",
    balance=1000.25,
    currency="USD",
    profit=-3.5,
    win_rate=0.5,
    wins=3,
    losses=3,
    ties=1,
    total_trades=8,
    active_trades=1,
    asset="EURUSD-OTC",
    timeframe=60,
    model="default",
    limits=status_pb2.Limits(max_trades=10, trades=8, daily_profit=-3.5),
    expires_in=3599,
    broker_connection="connected",
    statistics=status_pb2.Statistics(hit_rate=0.5, verdict="no evidence of an edge"),
    settings=SETTINGS,
    open_trades=[TRADE],
    seq=2**40,
    evidence_gate=status_pb2.EvidenceGate(
        mode="on", state="closed", model="default", shadow_decisions=412, words="no evidence of an edge"
    ),
)
ASSET = market_pb2.Asset(
    asset="EURUSD-OTC", name="EUR/USD (OTC)", instrument_types=["turbo", "blitz"], open=True, payout_rate=0.87,
    min_amount=1, max_amount=20_000,
)  # fmt: skip
CANDLE = market_pb2.Candle(
    open_time=_time(0), close_time=_time(59), open=1.08, high=1.09, low=1.07, close=1.085, volume=12
)
MODEL = model_pb2.Model(
    model="rl-ppo", version="v1.0.0", state="active", pinned=True, is_default=True, sha256="0a" * 32, features_version="f-3",
    min_payout_rate=0.8, max_payout_rate=0.92, expiry_bars=1, min_history=1000, margin=0.005, description="Words.",
    create_time=_time(5),
)  # fmt: skip
CREDENTIALS = {"broker": "iq", "account_type": "REAL", "email": "a@example.com", "password": "secret"}
CONNECTED = pb.ConnectResponse(
    success=True, session_id=SESSION, balance=1000.25, broker="iq", account_type="REAL", currency="USD",
    reconnected=True, running=True, expires_in=3600, access_token="a.b.c",
)  # fmt: skip
BALANCE = pb.GetBalanceResponse(
    success=True, session_id=SESSION, balance=1000.25, currency="USD", account_type="REAL", broker="iq"
)
STARTED = pb.StartBotResponse(success=True, running=True, status="running", settings=SETTINGS)
STOPPED = pb.StopBotResponse(success=True, running=False, status="stopped", open_trades=2)

_ME = {"session_id": SESSION}
_QUERY = f"session_id={SESSION}"
_TRADE_FIELDS = _words(
    "success trade_id client_request_id status asset direction amount currency payout_rate entry_price account_type "
    "broker"
)
_BALANCE_FIELDS = frozenset({"success", "session_id", "balance", "currency", "account_type", "broker"})
_MODELS = frozenset({"success", "models"})
_BOT = frozenset({"success", "running", "status"})
_ORDER = {
    "asset": "EURUSD-OTC", "direction": "call", "amount": 12.34, "duration_seconds": 5, "instrument_type": "blitz",
    "client_request_id": "r-1",
}  # fmt: skip

GOLDEN = (
    Golden(
        "Connect", "POST", "/api/connect", CONNECTED,
        _words("success session_id balance broker account_type currency reconnected running expires_in access_token"),
        CREDENTIALS, {**CREDENTIALS, "session_id": None},
    ),
    Golden("Connect", "POST", "/api/connect", CONNECTED, frozenset(), {**CREDENTIALS, **_ME}, {**CREDENTIALS, **_ME}),
    Golden(
        "Disconnect", "POST", "/api/disconnect", pb.DisconnectResponse(success=True, session_id=SESSION),
        frozenset({"success", "session_id"}), _ME, _ME,
    ),
    Golden("StartBot", "POST", "/api/start", STARTED, _BOT, _ME, _ME),
    Golden(
        "StartBot", "POST", "/api/bot/start", STARTED, _BOT, {**_ME, "amount": 2.5, "max_trades": 0},
        {**_ME, "amount": 2.5, "maxTrades": 0},
    ),
    Golden("StopBot", "POST", "/api/stop", STOPPED, _BOT | {"open_trades"}, _ME, _ME),
    Golden("StopBot", "POST", "/api/bot/stop", STOPPED, _BOT | {"open_trades"}, _ME, _ME),
    Golden("PauseBot", "POST", "/api/pause", pb.PauseBotResponse(success=True, status="paused"), _BOT, _ME, _ME),
    Golden(
        "ResumeBot", "POST", "/api/resume", pb.ResumeBotResponse(success=True, running=True, status="running"), _BOT,
        _ME, _ME,
    ),
    Golden(
        "GetStatus", "GET", f"/api/status?{_QUERY}", STATUS,
        _words("success session_id broker account_type connected running status balance currency profit win_rate wins "
        "losses ties total_trades active_trades asset timeframe model expires_in broker_connection"),
        _ME,
    ),
    Golden("GetBalance", "GET", f"/api/balance?{_QUERY}", BALANCE, _BALANCE_FIELDS, _ME),
    Golden("GetBalance", "POST", "/api/balance", BALANCE, _BALANCE_FIELDS, _ME, _ME),
    Golden("PlaceTrade", "POST", "/api/trade", TRADE, _TRADE_FIELDS, {**_ME, **_ORDER}, {**_ME, **_ORDER}),
    Golden(
        "ListTrades", "GET", f"/api/trades?{_QUERY}&limit=2&page_token=a%3D&status=won",
        pb.ListTradesResponse(success=True, trades=[TRADE, TRADE], next_page_token="b="),
        frozenset({"success", "trades", "next_page_token"}),
        {**_ME, "limit": 2, "page_token": "a=", "status": "won"},
    ),
    Golden(
        "GetTrade", "GET", f"/api/trades/{TRADE_ID}?{_QUERY}", TRADE, _TRADE_FIELDS, {**_ME, "trade_id": TRADE_ID}
    ),
    Golden(
        "CloseTrade", "POST", f"/api/trades/{TRADE_ID}/close", TRADE, _TRADE_FIELDS, {**_ME, "trade_id": TRADE_ID}, _ME
    ),
    Golden(
        "ListAssets", "GET", f"/api/assets?{_QUERY}", pb.ListAssetsResponse(success=True, assets=[ASSET]),
        frozenset({"success", "assets"}), _ME,
    ),
    Golden(
        "ListCandles", "GET", f"/api/candles/EURUSD-OTC?{_QUERY}&timeframe=60&count=1",
        pb.ListCandlesResponse(success=True, candles=[CANDLE]), frozenset({"success", "candles"}),
        {**_ME, "asset": "EURUSD-OTC", "timeframe": 60, "count": 1},
    ),
    Golden("ListModels", "GET", "/api/models", pb.ListModelsResponse(success=True, models=[MODEL]), _MODELS),
    Golden("ListModels", "GET", f"/api/models?{_QUERY}", pb.ListModelsResponse(success=True), _MODELS, _ME),
    Golden(
        "GetModel", "GET", f"/api/models/rl-ppo?{_QUERY}&version=1.0.0",
        pb.GetModelResponse(success=True, model=MODEL, card="# rl-ppo", versions=[MODEL]),
        frozenset({"success", "card", "versions"}), {**_ME, "model": "rl-ppo", "version": "1.0.0"},
    ),
    Golden(
        "SetTimeframe", "POST", "/api/timeframe", pb.SetTimeframeResponse(success=True, timeframe=300),
        frozenset({"success", "timeframe"}), {**_ME, "timeframe": 300}, {**_ME, "timeframe": 300},
    ),
)  # fmt: skip
EXPORT = Golden(
    "ExportTrades", "GET", f"/api/trades/export?{_QUERY}&format=csv",
    pb.ExportTradesResponse(file=HttpBody(content_type="text/csv; charset=utf-8", data=b"trade_id,amount\nx,1\n")),
    frozenset(), {**_ME, "format": "csv"},
)  # fmt: skip
