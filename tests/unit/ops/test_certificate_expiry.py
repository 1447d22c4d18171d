"""Certificates near their expiry: what doctor reports, and what Prometheus records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from ops import inner_tls, settings_file
from ops.doctor import expiring_certificates
from ops.doctor.finding import Examined
from ops.observability import certificate_expiry


@pytest.mark.parametrize(
    ("days", "urgencies"), [(21.1, []), (20.9, ["soon"]), (7.1, ["soon"]), (6.9, ["urgent"]), (-1, ["urgent"])]
)
def test_a_certificate_near_its_expiry_is_found(days, urgencies):
    now = datetime.now(UTC)
    findings = list(expiring_certificates.expiring({"postgres": now + timedelta(days=days)}, now))
    assert [str(finding.urgency) for finding in findings] == urgencies


def test_the_expiry_of_each_certificate_is_recorded(project):
    settings = settings_file.read(project) | {"TLS": "on"}
    inner_tls.renew(project, settings)
    examined = expiring_certificates.gather(Examined(project, settings))
    assert examined.keys() == {"authority", *(certificate.name for certificate in inner_tls.CERTIFICATES)}
    (group,) = yaml.safe_load(certificate_expiry.rules(examined))["groups"]
    recorded = {rule["labels"]["certificate"]: rule["expr"] for rule in group["rules"]}
    assert recorded["redis"] == f"vector({examined['redis'].timestamp():.0f})"
    assert yaml.safe_load(certificate_expiry.rules({}))["groups"] == []
    assert expiring_certificates.gather(Examined(project, settings | {"TLS": "off"})) == {}
