"""What the session service is told by its environment."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from services.runtime.settings import ServerSettings


class SessionSettings(ServerSettings):
    """Settings of one replica, from ``SESSION_…``; URLs, targets and key files have no default."""

    model_config = SettingsConfigDict(
        env_prefix="SESSION_",
        extra="ignore",
        frozen=True,
        # A URL may hold a password; a complaint about it must not repeat it.
        hide_input_in_errors=True,
    )

    redis_url: SecretStr
    """Live state, leases and event streams; ``redis://`` or ``unix://``."""
    postgres_url: SecretStr
    """The ledger; ``postgresql://``."""
    broker_target: str
    """host:port of the broker service."""
    agent_target: str
    """host:port of the agent service."""
    kek_file: Path
    """Keys that wrap the keys of stored credentials."""
    jwt_key_file: Path
    """Ed25519 private key in PEM that signs access tokens."""
    token_lifetime: timedelta = timedelta(hours=12)
    """How long an access token is good; a connect gives a new one."""

    idle_timeout: int = 3600
    """Seconds without activity after which a session expires."""
    expiry_warning: int = 300
    """Seconds before the expiry at which session_expiring is sent."""
    lease_ttl: float = 5.0
    """Seconds after which another replica takes over the sessions of one that fell silent."""
    scan_interval: float = 1.0
    """Seconds between two looks for sessions that nobody runs."""
    settle_time: float = 15.0
    """Seconds a new replica has to live before the others give it sessions."""
    scan_limit: int = 20_000
    """Sessions looked at in one scan; more than there are on all replicas together."""
    event_retention: timedelta = timedelta(days=7)
    """How long the events of a closed session are kept; its trades are kept for ever."""

    max_open_trades: int = 100
    """Trades of one session that may be open at once."""
    max_amount: Decimal = Decimal(20_000)
    """Largest stake of any trade, account currency."""
    send_window: float = 5.0
    """Seconds after which an order that is not on the wire yet is not sent any more."""
    trade_patience: float = 20.0
    """Seconds a caller waits for a trade's outcome; after that he gets it as it stands."""
    drain_patience: float = 10.0
    """Seconds that orders under way get to be answered and recorded at shutdown."""
