"""tradebot.session.v1.SessionService: decode, call, encode."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, assert_never

import grpc
from google.api.httpbody_pb2 import HttpBody
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1 import session_service_pb2_grpc, status_pb2, trade_pb2

from services.runtime.clock import Clock
from services.session import codec, requests
from services.session.domain.events import StoredEvent
from services.session.domain.values import BotStatus, session_key
from services.session.use_cases.export import trades_to_csv
from services.session.use_cases.sessions import Sessions
from services.session.use_cases.watching import CandleFrame, Frame, Gap, Snapshot, Watching

Context = grpc.aio.ServicerContext[Any, Any]


def _metadata(context: Context) -> Mapping[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


class SessionServicer(session_service_pb2_grpc.SessionServiceServicer):
    """The wire's face of the use cases."""

    def __init__(self, sessions: Sessions, watching: Watching, clock: Clock, idle_timeout: int) -> None:
        self._sessions = sessions
        self._watching = watching
        self._clock = clock
        self._idle_timeout = idle_timeout

    async def Connect(self, request: pb.ConnectRequest, context: Context) -> pb.ConnectResponse:
        connected = await self._sessions.connect(requests.connect(request, _metadata(context)))
        return pb.ConnectResponse(
            success=True,
            session_id=connected.session_id.reveal(),
            balance=float(connected.account.balance),
            broker=connected.record.broker,
            account_type=connected.record.account.account_type,
            currency=connected.account.currency,
            reconnected=connected.reconnected,
            running=connected.record.bot_status is BotStatus.RUNNING,
            expires_in=connected.expires_in,
            access_token=connected.access_token.reveal(),
        )

    async def Disconnect(self, request: pb.DisconnectRequest, context: Context) -> pb.DisconnectResponse:
        await self._sessions.disconnect(requests.key_of(request, _metadata(context)))
        return pb.DisconnectResponse(success=True, session_id=request.session_id)

    async def StartBot(self, request: pb.StartBotRequest, context: Context) -> pb.StartBotResponse:
        key = requests.key_of(request, _metadata(context))
        record = await self._sessions.start_bot(
            key, requests.bot_settings(request), with_timeframe=request.HasField("timeframe")
        )
        return pb.StartBotResponse(
            success=True,
            running=record.bot_status is BotStatus.RUNNING,
            status=record.bot_status,
            settings=codec.settings_to_proto(record.settings) if record.settings else None,
        )

    async def StopBot(self, request: pb.StopBotRequest, context: Context) -> pb.StopBotResponse:
        stopped = await self._sessions.stop_bot(requests.key_of(request, _metadata(context)))
        return pb.StopBotResponse(
            success=True, running=False, status=BotStatus.STOPPED, open_trades=stopped.open_trades
        )

    async def PauseBot(self, request: pb.PauseBotRequest, context: Context) -> pb.PauseBotResponse:
        await self._sessions.pause_bot(requests.key_of(request, _metadata(context)))
        return pb.PauseBotResponse(success=True, running=False, status=BotStatus.PAUSED)

    async def ResumeBot(self, request: pb.ResumeBotRequest, context: Context) -> pb.ResumeBotResponse:
        await self._sessions.resume_bot(requests.key_of(request, _metadata(context)))
        return pb.ResumeBotResponse(success=True, running=True, status=BotStatus.RUNNING)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> status_pb2.Status:
        status, expires_in = await self._sessions.status(requests.key_of(request, _metadata(context)))
        return codec.status_to_proto(status, session_id=request.session_id, expires_in=expires_in)

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Context) -> pb.GetBalanceResponse:
        record = await self._sessions.live(requests.key_of(request, _metadata(context)))
        return pb.GetBalanceResponse(
            success=True,
            session_id=request.session_id,
            balance=float(record.account.balance),
            currency=record.account.currency,
            account_type=record.account.account_type,
            broker=record.broker,
        )

    async def PlaceTrade(self, request: pb.PlaceTradeRequest, context: Context) -> trade_pb2.Trade:
        command = requests.trade(request, requests.key_of(request, _metadata(context)))
        return codec.trade_to_proto(await self._sessions.place_trade(command))

    async def ListTrades(self, request: pb.ListTradesRequest, context: Context) -> pb.ListTradesResponse:
        page = await self._sessions.trades(
            requests.key_of(request, _metadata(context)),
            limit=requests.trades_limit(request),
            page_token=requests.page_token(request),
            status=requests.trades_status(request),
        )
        return pb.ListTradesResponse(
            success=True,
            trades=[codec.trade_to_proto(trade) for trade in page.trades],
            next_page_token=page.next_page_token,
        )

    async def GetTrade(self, request: pb.GetTradeRequest, context: Context) -> trade_pb2.Trade:
        key = requests.key_of(request, _metadata(context))
        return codec.trade_to_proto(await self._sessions.trade(key, requests.trade_id(request.trade_id)))

    async def CloseTrade(self, request: pb.CloseTradeRequest, context: Context) -> trade_pb2.Trade:
        key = requests.key_of(request, _metadata(context))
        return codec.trade_to_proto(await self._sessions.close_trade(key, requests.trade_id(request.trade_id)))

    async def ExportTrades(self, request: pb.ExportTradesRequest, context: Context) -> pb.ExportTradesResponse:
        requests.export_format(request)
        key = requests.key_of(request, _metadata(context))
        trades = [trade async for trade in self._sessions.all_trades(key)]
        file = HttpBody(content_type="text/csv; charset=utf-8", data=trades_to_csv(trades))
        return pb.ExportTradesResponse(file=file)

    async def ListAssets(self, request: pb.ListAssetsRequest, context: Context) -> pb.ListAssetsResponse:
        assets = await self._sessions.assets(requests.key_of(request, _metadata(context)))
        return pb.ListAssetsResponse(success=True, assets=codec.assets_to_proto(assets))

    async def ListCandles(self, request: pb.ListCandlesRequest, context: Context) -> pb.ListCandlesResponse:
        candles = await self._sessions.candles(
            requests.key_of(request, _metadata(context)),
            requests.asset(request.asset),
            requests.timeframe(request, 60),
            requests.candle_count(request),
        )
        return pb.ListCandlesResponse(success=True, candles=[codec.candle_to_proto(candle) for candle in candles])

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        models = await self._sessions.models(requests.optional_key_of(request, _metadata(context)))
        return pb.ListModelsResponse(success=True, models=[codec.model_to_proto(model) for model in models])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        key = requests.optional_key_of(request, _metadata(context))
        model, versions = await self._sessions.model(
            key, requests.model_name(request.model), requests.model_version(request)
        )
        return pb.GetModelResponse(
            success=True,
            model=codec.model_to_proto(model),
            card=model.card,
            versions=[codec.model_to_proto(version) for version in versions],
        )

    async def SetTimeframe(self, request: pb.SetTimeframeRequest, context: Context) -> pb.SetTimeframeResponse:
        key = requests.key_of(request, _metadata(context))
        record = await self._sessions.set_timeframe(key, requests.timeframe(request))
        return pb.SetTimeframeResponse(success=True, timeframe=record.timeframe)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        session_id = requests.session_id_of(request, _metadata(context))
        frames = self._watching.watch(session_key(session_id), requests.last_seq(request))
        async with aclosing(frames):
            async for frame in frames:
                yield self._encode(frame, session_id)

    def _encode(self, frame: Frame, session_id: str) -> pb.WatchEventsResponse:
        # An open stream is activity, so that all of the idle time is left.
        expires_in, now = self._idle_timeout, self._clock.now()
        match frame:
            case StoredEvent() | CandleFrame():
                return codec.stored_event(frame.payload, session_id=session_id, expires_in=expires_in)
            case Snapshot(status):
                return codec.snapshot_event(status, session_id=session_id, expires_in=expires_in, time=now)
            case Gap(from_seq, to_seq, account_type):
                return codec.gap_event(from_seq, to_seq, session_id=session_id, account_type=account_type, time=now)
            case _:
                assert_never(frame)
