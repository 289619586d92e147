"""The brands that the simulator plays: the same platform under two names, told apart by data only."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Brand:
    """What differs between brands."""

    name: str
    company_id: int
    first_user_id: int
    """User ids count up from here, so an id tells the brand and never names two people."""
    first_order_id: int


BRANDS: Final = (
    Brand("iq", company_id=1, first_user_id=100_001, first_order_id=14_000_000_001),
    Brand("exnova", company_id=15, first_user_id=500_001, first_order_id=15_000_000_001),
)
