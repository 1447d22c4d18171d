"""The certificates of the stack's own authority, which every `up` renews in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ops import inner_tls, private_authority
from ops.doctor.finding import Finding, Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.doctor.finding import Examined

SOON, URGENT = timedelta(days=21), timedelta(days=7)
"""The remaining validity from which it is a finding, as in the alert CertificateExpiring."""
FIX: Final = "./ops/stack up"
AUTHORITY_FIX: Final = "./ops/stack down, delete compose/secrets/tls, then ./ops/stack up"


def gather(examined: Examined) -> Mapping[str, datetime]:
    """Return when each certificate in use expires; empty with TLS=off."""
    return inner_tls.expiries(examined.project, examined.settings)


def expiring(expiries: Mapping[str, datetime], now: datetime | None = None) -> Iterator[Finding]:
    """Yield a finding for each certificate that expires soon."""
    now = now or datetime.now(UTC)
    for name, expires in expiries.items():
        if (left := expires - now) < SOON:
            state = "expires soon" if left > timedelta() else "has expired"
            yield Finding(
                Urgency.URGENT if left < URGENT else Urgency.SOON,
                f"certificate of {name}",
                state,
                f"{expires:%Y-%m-%d %H:%M} UTC",
                AUTHORITY_FIX if name == private_authority.AUTHORITY else FIX,
            )
