"""The gRPC face of the broker service: decode, call, encode."""

from collections.abc import AsyncIterator

import grpc
from tradebot.broker.v1 import broker_service_pb2 as pb
from tradebot.broker.v1 import broker_service_pb2_grpc

from services.broker import codec
from services.broker.connections import Connections
from services.broker.domain.errors import AccountMismatchError, NotConnectedError, SellOutcomeUnknownError
from services.broker.domain.values import Account, ConnectionState
from services.runtime.clock import Clock
from services.runtime.interceptors import Context


class BrokerServicer(broker_service_pb2_grpc.BrokerServiceServicer):
    """Serves ``tradebot.broker.v1.BrokerService``; see the proto for every promise."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock

    async def Connect(self, request: pb.ConnectRequest, _context: Context) -> pb.ConnectResponse:
        """Log in and keep the connection, or find the one that stands."""
        if not request.HasField("credentials"):
            return pb.ConnectResponse(account=codec.account_to_proto(self._standing(request)))
        connector = await self._connections.connect(codec.connect_from_proto(request))
        return pb.ConnectResponse(
            account=codec.account_to_proto(connector.account), broker_token=connector.broker_token.reveal()
        )

    def _standing(self, request: pb.ConnectRequest) -> Account:
        connector = self._connections.get_for_order(codec.session_key(request.session_key))
        if connector.state is ConnectionState.REFUSED:
            # It cannot heal itself: only credentials can bring it back.
            raise NotConnectedError
        account = connector.account
        if (account.broker, account.account_type) != codec.wanted_account(request):
            raise AccountMismatchError("another connection stands under this session key")
        return account

    async def Disconnect(self, request: pb.DisconnectRequest, _context: Context) -> pb.DisconnectResponse:
        """Close a connection."""
        await self._connections.close(codec.session_key(request.session_key), log_out=request.log_out)
        return pb.DisconnectResponse()

    async def GetAccount(self, request: pb.GetAccountRequest, _context: Context) -> pb.GetAccountResponse:
        """Return the account as the broker reports it now."""
        connector = self._connections.get(codec.session_key(request.session_key))
        account = await connector.get_account()
        return pb.GetAccountResponse(
            account=codec.account_to_proto(account), connection_state=codec.state_to_proto(connector.state)
        )

    async def ListAssets(self, request: pb.ListAssetsRequest, _context: Context) -> pb.ListAssetsResponse:
        """List assets with live payouts."""
        connector = self._connections.get(codec.session_key(request.session_key))
        return pb.ListAssetsResponse(assets=[codec.asset_to_proto(asset) for asset in await connector.list_assets()])

    async def ListCandles(self, request: pb.ListCandlesRequest, _context: Context) -> pb.ListCandlesResponse:
        """List candles, ascending."""
        connector = self._connections.get(codec.session_key(request.session_key))
        count, end_time = codec.candle_span(request)
        candles = await connector.list_candles(codec.asset(request.asset), request.timeframe, count, end_time)
        return pb.ListCandlesResponse(candles=[codec.candle_to_proto(candle) for candle in candles])

    async def WatchCandles(
        self, request: pb.WatchCandlesRequest, _context: Context
    ) -> AsyncIterator[pb.WatchCandlesResponse]:
        """Stream live candles."""
        connector = self._connections.get(codec.session_key(request.session_key))
        async for candle in connector.watch_candles(codec.asset(request.asset), request.timeframe):
            yield pb.WatchCandlesResponse(candle=codec.candle_to_proto(candle))

    async def WatchAccount(
        self, request: pb.WatchAccountRequest, _context: Context
    ) -> AsyncIterator[pb.WatchAccountResponse]:
        """Stream what happens to the account."""
        async for event in self._connections.watch_account(codec.session_key(request.session_key)):
            yield codec.event_to_proto(event)

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, _context: Context) -> pb.PlaceOrderResponse:
        """Send an order once."""
        connector = self._connections.get_for_order(codec.session_key(request.session_key))
        order = await connector.place_order(codec.new_order_from_proto(request))
        return pb.PlaceOrderResponse(order=codec.order_to_proto(order))

    async def SellOrder(self, request: pb.SellOrderRequest, context: Context) -> pb.SellOrderResponse:
        """Offer an open order back."""
        connector = self._connections.get_for_order(codec.session_key(request.session_key))
        try:
            order = await connector.sell_order(codec.broker_order_id(request.broker_order_id))
        except SellOutcomeUnknownError as error:
            # The one failure that must not carry our domain, because it proves nothing.
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, error.message)
        return pb.SellOrderResponse(order=codec.order_to_proto(order))

    async def ListOrders(self, request: pb.ListOrdersRequest, _context: Context) -> pb.ListOrdersResponse:
        """List open and closed orders as the broker lists them now."""
        connector = self._connections.get(codec.session_key(request.session_key))
        return codec.order_list_to_proto(await connector.list_orders(codec.closed_since(request, self._clock.now())))
