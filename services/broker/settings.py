"""Settings of the broker service, from the environment with the prefix ``BROKER_``."""

from typing import Literal, Self

from pydantic import SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.broker.connectors.quadcode.brands import Brand
from services.broker.domain.values import Broker
from services.runtime.settings import ServerSettings


class Settings(ServerSettings):
    """All that can be configured. The brands' addresses are the real ones unless set."""

    model_config = SettingsConfigDict(env_prefix="BROKER_", extra="ignore", frozen=True)

    connector: Literal["native", "iqoptionapi"] = "native"
    """Who speaks with the broker: our own connector, or the iqoptionapi library in a child process for each session (slower,
    heavier, and without blitz options: see ``connectors/iqoptionapi``)."""
    iqoptionapi_python: str = ""
    """Interpreter of the environment that has the library (api-iqoption-faria 7.1.2); needed for that connector only."""

    redis_url: SecretStr | None = None
    """Where login attempts are counted for all processes. Without it each process counts by itself: then the brokers'
    login limits are kept only while one process serves an egress address."""
    egress: str = "default"
    """Name of the address that this process's connections leave from. Processes behind the same address share it."""

    iq_http_url: str = "https://auth.iqoption.com/api"
    iq_ws_url: str = "wss://iqoption.com/echo/websocket"
    iq_origin: str = "https://iqoption.com"
    exnova_http_url: str = "https://auth.trade.exnova.com/api"
    exnova_ws_url: str = "wss://ws.trade.exnova.com/echo/websocket"
    exnova_origin: str = "https://trade.exnova.com"

    connect_timeout: float = 10.0
    """For the broker's login, socket and opening, each. Seconds, as all that follow."""
    request_timeout: float = 10.0
    """For an answer of the broker."""
    order_timeout: float = 8.0
    """For the answer to an order, before it counts as SUBMITTED."""
    silence_limit: float = 15.0
    """Without a tick of the broker's clock for this long the connection counts as lost."""
    settlement_grace: float = 5.0
    """After the expiry, before a settlement that was not pushed is read from the history."""
    unwatched_limit: float = 300.0
    """After which a connection is closed whose account nobody follows."""
    assets_max_age: float = 60.0
    """After which the assets of a group of users are read anew; payouts are pushed in between."""

    @model_validator(mode="after")
    def _library_has_an_interpreter(self) -> Self:
        if self.connector == "iqoptionapi" and not self.iqoptionapi_python:
            raise ValueError("BROKER_CONNECTOR=iqoptionapi needs BROKER_IQOPTIONAPI_PYTHON")
        return self

    def brands(self) -> dict[Broker, Brand]:
        """Return where the brands answer."""
        return {
            Broker.IQ: Brand(Broker.IQ, self.iq_http_url, self.iq_ws_url, self.iq_origin),
            Broker.EXNOVA: Brand(Broker.EXNOVA, self.exnova_http_url, self.exnova_ws_url, self.exnova_origin),
        }
