"""Rules that record when each certificate of the stack's authority expires: `up` alone renews them.

`up` writes them to generated/rules/certificates.yaml. An exporter would see the servers' certificates only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

RECORDED: Final = "airflow_ha_certificate_expiry_timestamp_seconds"
HEADER: Final = "# Written by `./ops/stack up`, from the certificates in secrets/tls. Empty without TLS.\n"
GROUP: Final = """\
groups:
  - name: airflow-certificates
    interval: 60s
    rules:
"""


def rules(expiries: Mapping[str, datetime]) -> str:
    """Return the recording rules, the same text for the same certificates.

    Args:
        expiries: When each certificate expires, by name.
    """
    if not expiries:
        return f"{HEADER}groups: []\n"
    return (
        HEADER
        + GROUP
        + "".join(
            f"      - record: {RECORDED}\n"
            f"        labels: {{ certificate: {name} }}\n"
            f"        expr: vector({expires.timestamp():.0f})\n"
            for name, expires in sorted(expiries.items())
        )
    )
