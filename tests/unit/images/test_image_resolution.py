"""Which image is used: the official one where it is here or a registry answers, a stand-in where none does.

`docker` is a script that answers as the daemon would, and writes down what it was asked: conftest.py.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ops.images import debian_base, fallback_images, resolve
from ops.images.image_registry import registry_host
from ops.images.resolve import ImageError, ResolvedImage, official_references, resolve_images

ROOT = Path(__file__).resolve().parents[3]
OFFICIAL = official_references(ROOT, {})
SERVICES = ("AIRFLOW_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "GATEWAY_IMAGE")
CORE = {key: reference for key, reference in OFFICIAL.items() if key not in resolve.PROFILES}
OBSERVABILITY = [key for key, profile in resolve.PROFILES.items() if profile == "observability"]


def find(environ=None, profiles=("data", "flower"), report=lambda _: None, **options) -> dict[str, ResolvedImage]:
    return resolve_images(ROOT, report, profiles, environ or {}, **options)


def origins(found: dict[str, ResolvedImage]) -> set[str]:
    return {image.origin for image in found.values()}


def test_with_a_registry_every_service_gets_its_official_image(daemon):
    daemon.registry("answers")
    found = find()
    assert set(found) == set(SERVICES)
    assert origins(found) == {"official"}
    assert all(found[key].reference == OFFICIAL[key] for key in SERVICES if key != "AIRFLOW_IMAGE")
    assert len(daemon.calls("build")) == 1, "only the Airflow image is built"
    assert f"AIRFLOW_BASE_IMAGE={OFFICIAL['AIRFLOW_BASE_IMAGE']}" in daemon.calls("build")[0]


def test_without_a_registry_every_service_gets_a_stand_in(daemon):
    found = find()
    assert origins(found) == {"airgap"}
    assert all("airgap" in found[key].reference for key in SERVICES if key != "AIRFLOW_IMAGE")
    assert len(daemon.calls("build")) == 5
    assert len(daemon.calls("import")) == 1


def test_a_registry_that_is_away_is_asked_once_not_once_an_image(daemon):
    find()
    assert len(daemon.calls("pull")) == 1


def test_a_registry_that_never_answers_costs_its_time_limit_once(daemon):
    daemon.registry("hangs")
    started = time.monotonic()
    found = find(answer_seconds=0.5)
    assert origins(found) == {"airgap"}
    assert time.monotonic() - started < 10
    assert len(daemon.calls("pull")) == 1


def test_a_registry_that_refuses_one_image_is_still_asked_for_the_others(daemon):
    daemon.registry("refuses")
    assert origins(find()) == {"airgap"}
    assert len(daemon.calls("pull")) == len(CORE)


@pytest.mark.parametrize("profiles", [(), ("observability",)])
@pytest.mark.parametrize("registry", ["answers", "is-away"])
def test_a_second_time_nothing_is_pulled_or_built_and_no_registry_is_asked(daemon, registry, profiles):
    daemon.registry(registry)
    first = find(profiles=profiles)
    daemon.forget_calls()
    daemon.registry("hangs")
    started = time.monotonic()
    assert find(profiles=profiles) == first
    assert time.monotonic() - started < 2
    assert not daemon.calls("pull") + daemon.calls("build") + daemon.calls("import")


def test_a_registry_that_comes_back_does_not_change_the_images_of_a_running_stack(daemon):
    first = find()
    daemon.registry("answers")
    assert find() == first


def test_official_images_that_are_here_are_used_without_a_registry(daemon):
    daemon.has(*OFFICIAL.values())
    assert origins(find()) == {"official"}
    assert daemon.calls("pull") == []


def test_only_what_is_missing_gets_a_stand_in(daemon):
    daemon.has(OFFICIAL["POSTGRES_IMAGE"], OFFICIAL["AIRFLOW_BASE_IMAGE"])
    found = find()
    assert {key: image.origin for key, image in found.items()} == {
        "AIRFLOW_IMAGE": "official",
        "POSTGRES_IMAGE": "official",
        "REDIS_IMAGE": "airgap",
        "GATEWAY_IMAGE": "airgap",
    }


def test_a_built_airflow_image_does_not_need_its_base_any_more(daemon):
    found = find()
    daemon.has(*(image.reference for image in found.values()))
    daemon.forget_calls()
    assert find() == found
    assert daemon.calls("build") == []


def test_a_changed_stand_in_is_built_again_and_the_others_are_not(daemon, monkeypatch):
    find()
    daemon.forget_calls()
    reference = fallback_images.reference

    def changed(root, key):
        return reference(root, key) + ("0" if key == "REDIS_IMAGE" else "")

    monkeypatch.setattr(fallback_images, "reference", changed)
    find()
    assert [line for line in daemon.calls("build") if "airgap-redis" in line] == daemon.calls("build")
    assert len(daemon.calls("build")) == 1


def test_stack_images_airgap_does_not_look_for_official_images(daemon):
    daemon.has(*OFFICIAL.values())
    daemon.registry("answers")
    assert origins(find({"STACK_IMAGES": "airgap"})) == {"airgap"}
    assert daemon.calls("pull") == []


def test_stack_images_official_never_builds_a_stand_in_and_says_why_it_failed(daemon):
    with pytest.raises(ImageError, match=r"cannot be pulled: .*no such host") as refusal:
        find({"STACK_IMAGES": "official"})
    assert "docker load" in str(refusal.value)
    assert daemon.calls("build") == []


def test_an_unknown_stack_images_is_refused_with_the_known_words(daemon):
    with pytest.raises(ImageError, match="official, airgap, auto"):
        find({"STACK_IMAGES": "offline"})


def test_an_image_that_was_asked_for_by_name_is_not_replaced_by_another(daemon):
    with pytest.raises(ImageError, match=r"POSTGRES_IMAGE=registry\.test/pg:1 cannot be pulled"):
        find({"POSTGRES_IMAGE": "registry.test/pg:1"})


def test_an_image_that_was_asked_for_by_name_is_used(daemon):
    daemon.has("registry.test/pg:1")
    assert find({"POSTGRES_IMAGE": "registry.test/pg:1"})["POSTGRES_IMAGE"].reference == "registry.test/pg:1"


def test_a_failed_build_shows_the_builds_last_lines(daemon, monkeypatch):
    script = daemon.folder / "bin/docker"
    script.write_text(
        script.read_text().replace('"build "*)', '"build "*) echo "E: no space left"; exit 3;;\n  "x "*)')
    )
    with pytest.raises(ImageError, match=r"(?s)exit 3.*no space left"):
        find()


def test_a_failed_base_shows_mmdebstraps_last_lines(daemon):
    (daemon.folder / "bin/mmdebstrap").write_text("#!/bin/sh\necho 'E: signature refused'; exit 25\n")
    with pytest.raises(ImageError, match=r"(?s)base of the stand-in images.*signature refused"):
        find()


def test_progress_lines_come_whole_and_name_the_image(daemon):
    said: list[str] = []
    find(report=said.append)
    assert any("no such host" in line for line in said)
    assert {line.split(":")[0] for line in said} >= {"debian", "airflow", "postgres", "redis", "haproxy"}


def test_the_replicated_data_tier_is_built_on_the_official_images_where_they_can_be_had(daemon):
    daemon.registry("answers")
    found = find(profiles=["data-ha"])
    assert set(found) == {*SERVICES, "PATRONI_IMAGE"}
    assert origins(found) == {"official"}
    (build,) = [line for line in daemon.calls("build") if "airflow-ha/patroni:" in line]
    assert f"POSTGRES_IMAGE={OFFICIAL['POSTGRES_IMAGE']}" in build
    assert f"ETCD_IMAGE={OFFICIAL['ETCD_IMAGE']}" in build


def test_the_replicated_data_tier_is_built_on_stand_ins_where_nothing_can_be_pulled(daemon):
    found = find(profiles=["data-ha"])
    assert origins(found) == {"airgap"}
    builds = daemon.calls("build")
    order = [next(at for at, line in enumerate(builds) if name in line) for name in ("airgap-etcd", "-ha/patroni:")]
    assert order == sorted(order)


def test_a_built_patroni_image_needs_neither_of_its_bases_any_more(daemon):
    found = find(profiles=["data-ha"])
    daemon.has(*(image.reference for image in found.values()))
    daemon.forget_calls()
    assert find(profiles=["data-ha"]) == found
    assert daemon.calls("build") == []


def test_a_profile_that_is_off_costs_no_image(daemon):
    daemon.registry("answers")
    assert not set(find(profiles=["data"])) & set(OBSERVABILITY)
    assert not [line for line in daemon.calls("") for key in OBSERVABILITY if OFFICIAL[key] in line]


def test_with_a_registry_a_profile_that_is_on_has_all_its_official_images(daemon):
    daemon.registry("answers")
    found = find(profiles=["observability"])
    assert set(found) == {*SERVICES, *OBSERVABILITY}
    assert origins(found) == {"official"}


def test_what_no_package_has_is_left_out_with_one_sentence_and_the_rest_gets_stand_ins(daemon):
    said: list[str] = []
    found = find(profiles=["observability"], report=said.append)
    assert set(OBSERVABILITY) - set(found) == {"GRAFANA_IMAGE", "JAEGER_IMAGE"}
    assert origins(found) == {"airgap"}
    assert [line for line in said if "Grafana and Jaeger left out" in line] == [line for line in said if "left" in line]


def test_what_was_left_out_is_asked_for_again_where_the_registry_gave_the_rest(daemon):
    missing = OFFICIAL["JAEGER_IMAGE"]
    daemon.has(*(reference for reference in OFFICIAL.values() if reference != missing))
    assert "JAEGER_IMAGE" not in find(profiles=["observability"])
    daemon.registry("answers")
    assert find(profiles=["observability"])["JAEGER_IMAGE"].reference == missing


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"GRAFANA_IMAGE": "registry.test/grafana:1"}, r"GRAFANA_IMAGE=registry\.test/grafana:1 cannot be pulled"),
        ({"STACK_IMAGES": "official"}, "grafana.*cannot be pulled"),
    ],
)
def test_what_somebody_asked_for_is_never_left_out(daemon, environ, message):
    daemon.has(*(reference for key, reference in OFFICIAL.items() if key != "GRAFANA_IMAGE"))
    with pytest.raises(ImageError, match=message):
        find(environ, profiles=["observability"])


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("postgres:17.6", ""),
        ("apache/airflow:slim", ""),
        ("registry.test/postgres:17.6", "registry.test"),
        ("localhost:5000/postgres", "localhost:5000"),
        ("localhost/postgres", "localhost"),
    ],
)
def test_the_registry_is_read_from_the_reference(reference, host):
    assert registry_host(reference) == host


def test_the_base_image_is_built_before_any_stand_in(daemon):
    find()
    order = [line.split()[0] for line in daemon.calls("")]
    assert order.index("import") < order.index("build")
    assert debian_base.reference() in daemon.calls("import")[0]
    assert resolve.is_local(debian_base.reference())
