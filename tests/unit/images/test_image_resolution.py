"""Each service's image: the official one if it is on this machine or a registry answers, otherwise a fallback image.

`docker` is a script that answers as the daemon does, and records its calls: conftest.py.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ops.images import debian_base, fallback_images, resolve
from ops.images.image_registry import registry_host
from ops.images.progress import LineProgress
from ops.images.resolve import (
    ImageError,
    ImagePlan,
    ResolvedImage,
    official_references,
    plan_images,
    resolve_images,
)

ROOT = Path(__file__).resolve().parents[3]
OFFICIAL = official_references(ROOT, {})
SERVICES = ("AIRFLOW_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "GATEWAY_IMAGE")
CORE = {key: reference for key, reference in OFFICIAL.items() if key not in resolve.PROFILES}
OBSERVABILITY = [key for key, profile in resolve.PROFILES.items() if profile == "observability"]


def resolve_all(
    environ=None, profiles=("data", "flower"), report=lambda _: None, **options
) -> dict[str, ResolvedImage]:
    return resolve_images(ROOT, report, profiles, environ or {}, **options)


def plan(profiles=("data", "data-ha", "observability"), **options) -> ImagePlan:
    return plan_images(ROOT, LineProgress(lambda _: None), profiles, {}, **options)


def origins(images: dict[str, ResolvedImage]) -> set[str]:
    return {image.origin for image in images.values()}


def targets(daemon) -> set[str]:
    """The fallback images that were built."""
    return {line.split("--target ")[1].split()[0] for line in daemon.calls("build") if "--target" in line}


def test_with_a_registry_services_get_official_images(daemon):
    daemon.registry("answers")
    images = resolve_all()
    assert set(images) == set(SERVICES)
    assert origins(images) == {"official"}
    assert all(images[key].reference == OFFICIAL[key] for key in SERVICES if key != "AIRFLOW_IMAGE")
    assert len(daemon.calls("build")) == 1, "only the Airflow image is built"
    assert f"AIRFLOW_BASE_IMAGE={OFFICIAL['AIRFLOW_BASE_IMAGE']}" in daemon.calls("build")[0]


def test_an_image_with_a_digest_is_pulled_and_used_by_it(daemon):
    daemon.registry("answers")
    pinned = f"{OFFICIAL['REDIS_IMAGE']}@sha256:{'1' * 64}"
    assert resolve_all({"REDIS_IMAGE": pinned})["REDIS_IMAGE"] == ResolvedImage(pinned, "official")
    assert any(line.endswith(pinned) for line in daemon.calls("pull"))


def test_without_a_registry_services_get_fallback_images(daemon):
    images = resolve_all()
    assert origins(images) == {"airgap"}
    assert all("airgap" in images[key].reference for key in SERVICES if key != "AIRFLOW_IMAGE")
    assert len(daemon.calls("build")) == 5
    assert len(daemon.calls("import")) == 1


def test_an_unreachable_registry_is_probed_once(daemon):
    resolve_all()
    assert len(daemon.calls("pull")) == 1


def test_a_silent_registry_costs_its_time_limit_once(daemon):
    daemon.registry("hangs")
    started = time.monotonic()
    images = resolve_all(answer_seconds=0.5)
    assert origins(images) == {"airgap"}
    assert time.monotonic() - started < 10
    assert len(daemon.calls("pull")) == 1


def test_after_a_refusal_the_other_images_are_requested(daemon):
    daemon.registry("refuses")
    assert origins(resolve_all()) == {"airgap"}
    assert len(daemon.calls("pull")) == len(CORE)


@pytest.mark.parametrize("profiles", [(), ("observability",)])
@pytest.mark.parametrize("registry", ["answers", "unreachable"])
def test_a_second_run_pulls_and_builds_nothing(daemon, registry, profiles):
    daemon.registry(registry)
    first = resolve_all(profiles=profiles)
    daemon.forget_calls()
    daemon.registry("hangs")
    assert resolve_all(profiles=profiles) == first
    assert not daemon.calls("pull") + daemon.calls("build") + daemon.calls("import")


def test_a_recovered_registry_does_not_change_the_images(daemon):
    first = resolve_all()
    daemon.registry("answers")
    assert resolve_all() == first


def test_local_official_images_are_used_without_a_registry(daemon):
    daemon.has(*OFFICIAL.values())
    assert origins(resolve_all()) == {"official"}
    assert daemon.calls("pull") == []


def test_only_missing_images_get_a_fallback_image(daemon):
    daemon.has(OFFICIAL["POSTGRES_IMAGE"], OFFICIAL["AIRFLOW_BASE_IMAGE"])
    images = resolve_all()
    assert {key: image.origin for key, image in images.items()} == {
        "AIRFLOW_IMAGE": "official",
        "POSTGRES_IMAGE": "official",
        "REDIS_IMAGE": "airgap",
        "GATEWAY_IMAGE": "airgap",
    }


def test_a_built_airflow_image_no_longer_needs_its_base(daemon):
    images = resolve_all()
    daemon.has(*(image.reference for image in images.values()))
    daemon.forget_calls()
    assert resolve_all() == images
    assert daemon.calls("build") == []


def test_only_a_changed_fallback_image_is_built_again(daemon, monkeypatch):
    resolve_all()
    daemon.forget_calls()
    reference = fallback_images.reference

    def changed(root, key):
        return reference(root, key) + ("0" if key == "REDIS_IMAGE" else "")

    monkeypatch.setattr(fallback_images, "reference", changed)
    resolve_all()
    assert targets(daemon) == {"redis"}
    assert len(daemon.calls("build")) == 1


def test_stack_images_airgap_uses_no_official_image(daemon):
    daemon.has(*OFFICIAL.values())
    daemon.registry("answers")
    assert origins(resolve_all({"STACK_IMAGES": "airgap"})) == {"airgap"}
    assert daemon.calls("pull") == []


def test_stack_images_official_builds_no_fallback_image(daemon):
    with pytest.raises(ImageError, match=r"cannot pull .*: .*no such host") as refusal:
        resolve_all({"STACK_IMAGES": "official"})
    assert "docker load" in str(refusal.value)
    assert daemon.calls("build") == []


def test_an_unknown_stack_images_value_is_refused(daemon):
    with pytest.raises(ImageError, match="official, airgap, auto"):
        resolve_all({"STACK_IMAGES": "offline"})


def test_a_named_image_is_not_replaced_by_another(daemon):
    with pytest.raises(ImageError, match=r"cannot pull POSTGRES_IMAGE=registry\.test/pg:1"):
        resolve_all({"POSTGRES_IMAGE": "registry.test/pg:1"})


def test_a_named_image_is_used(daemon):
    daemon.has("registry.test/pg:1")
    assert resolve_all({"POSTGRES_IMAGE": "registry.test/pg:1"})["POSTGRES_IMAGE"].reference == "registry.test/pg:1"


def test_a_failed_build_shows_the_builds_last_lines(daemon, monkeypatch):
    script = daemon.folder / "bin/docker"
    script.write_text(
        script.read_text().replace('"build "*)', '"build "*) echo "E: no space left"; exit 3;;\n  "x "*)')
    )
    with pytest.raises(ImageError, match=r"(?s)exit 3.*no space left"):
        resolve_all()


def test_a_failed_base_is_tried_once_and_shows_its_last_lines(daemon):
    script = '#!/bin/sh\necho try >> "$FAKE_DOCKER/calls"; echo "E: signature refused"; exit 25\n'
    (daemon.folder / "bin/mmdebstrap").write_text(script)
    with pytest.raises(ImageError, match=r"(?s)cannot build the Debian base.*signature refused"):
        resolve_all()
    assert len(daemon.calls("try")) == 1


def test_every_progress_line_names_its_image(daemon):
    lines: list[str] = []
    resolve_all(report=lines.append)
    assert any("no such host" in line for line in lines)
    assert {line.split(":")[0] for line in lines} >= {"debian", "airflow", "postgres", "redis", "haproxy"}


def test_patroni_is_built_on_official_images_that_can_be_pulled(daemon):
    daemon.registry("answers")
    images = resolve_all(profiles=["data-ha"])
    assert set(images) == {*SERVICES, "PATRONI_IMAGE"}
    assert origins(images) == {"official"}
    (build,) = [line for line in daemon.calls("build") if "airflow-ha/patroni:" in line]
    assert f"POSTGRES_IMAGE={OFFICIAL['POSTGRES_IMAGE']}" in build
    assert f"ETCD_IMAGE={OFFICIAL['ETCD_IMAGE']}" in build


def test_without_a_registry_patroni_is_built_on_fallback_images(daemon):
    images = resolve_all(profiles=["data-ha"])
    assert origins(images) == {"airgap"}
    builds = daemon.calls("build")
    order = [next(at for at, line in enumerate(builds) if name in line) for name in ("airgap-etcd", "-ha/patroni:")]
    assert order == sorted(order)


def test_a_built_patroni_image_no_longer_needs_its_bases(daemon):
    images = resolve_all(profiles=["data-ha"])
    daemon.has(*(image.reference for image in images.values()))
    daemon.forget_calls()
    assert resolve_all(profiles=["data-ha"]) == images
    assert daemon.calls("build") == []


def test_an_inactive_profile_needs_no_image(daemon):
    daemon.registry("answers")
    assert not set(resolve_all(profiles=["data"])) & set(OBSERVABILITY)
    assert not [line for line in daemon.calls("") for key in OBSERVABILITY if OFFICIAL[key] in line]


def test_with_a_registry_a_profile_has_all_its_official_images(daemon):
    daemon.registry("answers")
    images = resolve_all(profiles=["observability"])
    assert set(images) == {*SERVICES, *OBSERVABILITY}
    assert origins(images) == {"official"}


@pytest.mark.parametrize("registry", ["unreachable", "refuses"])
def test_images_without_a_package_are_left_out_with_one_line(daemon, registry):
    daemon.registry(registry)
    lines: list[str] = []
    images = resolve_all(profiles=["observability"], report=lines.append)
    assert set(OBSERVABILITY) - set(images) == {"GRAFANA_IMAGE", "JAEGER_IMAGE"}
    assert origins(images) == {"airgap"}
    assert len([line for line in lines if "Grafana" in line and "Jaeger" in line]) == 1


def test_beside_official_images_a_left_out_one_is_tried_again(daemon):
    missing = OFFICIAL["JAEGER_IMAGE"]
    daemon.has(*(reference for reference in OFFICIAL.values() if reference != missing))
    assert "JAEGER_IMAGE" not in resolve_all(profiles=["observability"])
    daemon.registry("answers")
    assert resolve_all(profiles=["observability"])["JAEGER_IMAGE"].reference == missing


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"GRAFANA_IMAGE": "registry.test/grafana:1"}, r"cannot pull GRAFANA_IMAGE=registry\.test/grafana:1"),
        ({"STACK_IMAGES": "official"}, "cannot pull grafana"),
    ],
)
def test_a_named_image_is_never_left_out(daemon, environ, message):
    daemon.has(*(reference for key, reference in OFFICIAL.items() if key != "GRAFANA_IMAGE"))
    with pytest.raises(ImageError, match=message):
        resolve_all(environ, profiles=["observability"])


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
def test_a_references_first_part_may_be_its_registry(reference, host):
    assert registry_host(reference) == host


def test_the_debian_base_is_built_before_any_fallback_image(daemon):
    resolve_all()
    order = [line.split()[0] for line in daemon.calls("")]
    assert order.index("import") < order.index("build")
    assert debian_base.reference() in daemon.calls("import")[0]
    assert resolve.is_local(debian_base.reference())


def test_a_plan_names_every_image_before_it_is_built(daemon):
    images = plan()
    assert daemon.calls("build") == []
    assert images.images == images.core() | images.rest()
    assert list(images.images) == list(resolve_all(profiles=["data", "data-ha", "observability"]))


def test_the_core_is_there_before_the_rest_is_built(daemon):
    images = plan()
    assert set(images.core()) == {*SERVICES, "PATRONI_IMAGE"}
    assert targets(daemon) == {"airflow-base", "postgres", "redis", "haproxy", "etcd"}
    assert len(daemon.calls("build")) == 7, "with Airflow's and Patroni's"
    daemon.forget_calls()
    assert set(images.rest()) == {*OBSERVABILITY} - {"GRAFANA_IMAGE", "JAEGER_IMAGE"}
    assert len(daemon.calls("build")) == 7


def test_a_plan_probes_each_registry_before_it_pulls_the_rest(daemon):
    daemon.registry("answers")
    images = plan()
    registries = {registry_host(reference) for reference in OFFICIAL.values()}
    assert len(daemon.calls("pull")) == len(registries)
    images.core()
    pulled = {line.split()[1] for line in daemon.calls("pull")}
    assert pulled >= set(CORE.values()) | {OFFICIAL["ETCD_IMAGE"]}
    assert len(pulled) == len(CORE) + len(registries) - 1, "and the first image of the rest's own registry"
    images.rest()
    assert len(daemon.calls("pull")) == len(OFFICIAL)


def test_a_plan_is_ready_while_the_pulls_that_it_began_go_on(daemon):
    daemon.registry("is-slow")
    images = plan()
    assert origins(images.images) == {"official"}
    assert OFFICIAL["AIRFLOW_BASE_IMAGE"] not in daemon.local()
    daemon.registry("answers")
    images.core()
    assert OFFICIAL["AIRFLOW_BASE_IMAGE"] in daemon.local()


def test_an_image_refused_after_the_plan_gets_a_fallback_image(daemon):
    daemon.registry("answers")
    images = plan()
    assert origins(images.images) == {"official"}
    daemon.registry("refuses")
    core, rest = images.core(), images.rest()
    assert core["REDIS_IMAGE"] == ResolvedImage(fallback_images.reference(ROOT, "REDIS_IMAGE"), "airgap")
    assert core["PATRONI_IMAGE"].origin == "airgap"
    assert rest["CADVISOR_IMAGE"].origin == "official"
    assert not {"GRAFANA_IMAGE", "JAEGER_IMAGE"} & set(rest)


def test_a_plan_without_any_source_fails_before_it_builds(daemon):
    with pytest.raises(ImageError, match="cannot pull"):
        plan_images(ROOT, LineProgress(print), ["data"], {"STACK_IMAGES": "official"})
    assert daemon.calls("build") == []


def test_images_are_built_once_for_two_callers(daemon):
    images = plan()
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: images.core(), range(2))
    assert first == second
    assert len(daemon.calls("build")) == 7


def test_on_an_empty_machine_observability_follows_the_core(daemon):
    plan = plan_images(ROOT, LineProgress(lambda _: None), ["data", "observability"], {})
    required = set(OBSERVABILITY) - set(resolve.OPTIONAL)
    assert set(plan.missing_rest()) == {resolve.image_name(key) for key in required}


def test_missing_optional_images_do_not_follow_the_core(daemon):
    daemon.has(*(fallback_images.reference(ROOT, key) for key in OBSERVABILITY if key not in resolve.OPTIONAL))
    plan = plan_images(ROOT, LineProgress(lambda _: None), ["data", "observability"], {})
    assert plan.missing_rest() == []
