"""The brands of the platform. They differ in hosts and in nothing else."""

from dataclasses import dataclass

from services.broker.domain.values import Broker


@dataclass(frozen=True, slots=True)
class Brand:
    """Where a brand answers. HTTP and WebSocket have different hosts on purpose: Exnova's web host answers an HTML page."""

    broker: Broker
    http_url: str
    """Origin and path before ``/v2/login``."""
    ws_url: str
    """The WebSocket's full address."""
    origin: str
    """The web page that a browser would come from."""

    @property
    def login_url(self) -> str:
        """Where e-mail and password go."""
        return f"{self.http_url}/v2/login"

    @property
    def verify_url(self) -> str:
        """Where the second factor goes."""
        return f"{self.http_url}/v2/verify/2fa"

    @property
    def logout_url(self) -> str:
        """Where a session token is made worthless."""
        return f"{self.http_url}/v1.0/logout"
