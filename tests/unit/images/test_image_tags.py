"""An image's tag depends on its inputs: unchanged inputs are never built again, changed ones always are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ops.images import fallback_images
from ops.images.build import BuildSteps, content_tag, values_tag
from ops.images.dockerfile_stages import parse_stages
from ops.images.resolve import BASES, BUILT_ON, OPTIONAL, PATRONI_IMAGE, PROFILES, airflow_reference, built_reference
from ops.images.versions import read_images_env, repository_and_tag, software_version
from ops.services import PROFILES as COMPOSE_PROFILES

ROOT = Path(__file__).resolve().parents[3]
AIRFLOW_INPUTS = (
    "compose/images/airflow/Dockerfile",
    "pyproject.toml",
    "uv.lock",
    "ops/bootstrap/uv-requirements.txt",
    "src/airflow_ha/__init__.py",
)


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "src/package").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    (tmp_path / "src/package/module.py").write_text("x = 1\n")
    return tmp_path


def tag(root: Path, *values: str) -> str:
    return content_tag(root, [root / "Dockerfile", root / "src"], values)


def test_equal_inputs_in_another_folder_have_the_same_tag(inputs, tmp_path_factory):
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(inputs, copy)
    assert tag(copy) == tag(inputs)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "Dockerfile").write_text("FROM y\n"),
        lambda root: (root / "src/package/module.py").rename(root / "src/package/other.py"),
        lambda root: (root / "src/package/new.py").write_text(""),
        lambda root: (root / "src/package/module.py").unlink(),
        lambda root: (root / "Dockerfile").chmod(0o755),
    ],
    ids=["content", "name", "new file", "removed file", "executable bit"],
)
def test_a_change_of_any_input_changes_the_tag(inputs, change):
    before = tag(inputs)
    change(inputs)
    assert tag(inputs) != before


def test_python_caches_do_not_change_the_tag(inputs):
    before = tag(inputs)
    (inputs / "src/package/__pycache__").mkdir()
    (inputs / "src/package/__pycache__/module.cpython-313.pyc").write_text("compiled")
    assert tag(inputs) == before


def test_values_and_their_order_change_the_tag(inputs):
    assert len({tag(inputs), tag(inputs, "a", "b"), tag(inputs, "b", "a"), tag(inputs, "ab")}) == 4
    assert re.fullmatch(r"[0-9a-f]{12}", values_tag(["a"]))


@pytest.mark.parametrize("changed", AIRFLOW_INPUTS)
def test_a_changed_input_changes_the_airflow_images_tag(changed, tmp_path):
    for name in ("compose/images", "ops/bootstrap", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    before = airflow_reference(tmp_path, "base:1")
    with (tmp_path / changed).open("a") as file:
        file.write("\n# changed\n")
    assert airflow_reference(tmp_path, "base:1") != before


def test_another_base_changes_the_airflow_images_tag():
    assert airflow_reference(ROOT, "base:1") != airflow_reference(ROOT, "base:2")


@pytest.fixture
def repository(tmp_path):
    """A copy of what the fallback images are built from."""
    shutil.copytree(ROOT / "ops/images/airgap", tmp_path / "ops/images/airgap")
    (tmp_path / "compose").mkdir()
    shutil.copy(ROOT / "compose/images.env", tmp_path / "compose/images.env")
    return tmp_path


def changed_targets(repository: Path, file: str, before: str, after: str) -> set[str]:
    """The fallback images whose tag changes with an edit of a file."""
    keys = {**fallback_images.FALLBACK_IMAGES, **fallback_images.TOOLS}
    references = {name: fallback_images.reference(repository, key) for key, name in keys.items()}
    path = repository / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return {name for key, name in keys.items() if fallback_images.reference(repository, key) != references[name]}


COMPILED = {"otel-collector", "cadvisor", "statsd-exporter", "actionlint"}
WITH_BUSYBOX = {
    *("cadvisor", "statsd-exporter", "prometheus", "alertmanager", "postgres-exporter", "redis-exporter"),
}


@pytest.mark.parametrize(
    ("file", "before", "after", "targets"),
    [
        ("Dockerfile", "redis-server tzdata", "redis-server", {"redis"}),
        ("Dockerfile", "etcd-server etcd-client", "etcd-server", {"etcd"}),
        ("Dockerfile", "EXPOSE 9187", "EXPOSE 9188", {"postgres-exporter"}),
        ("Dockerfile", "busybox-static", "busybox", WITH_BUSYBOX),
        ("Dockerfile", "CGO_ENABLED=0", "CGO_ENABLED=1", COMPILED),
        ("Dockerfile", "# ---- Redis 8", "# ---- Redis", set()),
        ("postgres/docker-entrypoint.sh", "exec", "exec ", {"postgres"}),
        ("otel-collector/manifest.yaml", "receivers", "processors", {"otel-collector"}),
        ("contract.yaml", "AIRFLOW_IMAGE", "OTHER_IMAGE", set()),
    ],
)
def test_an_edit_changes_only_the_tags_of_its_targets(repository, file, before, after, targets):
    assert changed_targets(repository, f"ops/images/airgap/{file}", before, after) == targets


def test_a_new_debian_base_changes_every_fallback_images_tag(repository):
    before, after = "FROM ${DEBIAN_IMAGE} AS debian", "FROM other AS debian"
    targets = {*fallback_images.FALLBACK_IMAGES.values(), *fallback_images.TOOLS.values()}
    assert changed_targets(repository, fallback_images.DOCKERFILE, before, after) == targets


def test_every_fallback_image_has_a_target_on_the_debian_base():
    _, stages = parse_stages((ROOT / fallback_images.DOCKERFILE).read_text())
    assert {*fallback_images.FALLBACK_IMAGES.values(), *fallback_images.TOOLS.values()} <= set(stages)
    bases = {stage.instructions[0].split()[1] for stage in stages.values()}
    assert bases - set(stages) == {"${DEBIAN_IMAGE}", "scratch"}


def test_every_image_has_a_contract_and_a_fallback_if_required():
    keys = {key for key in read_images_env(ROOT) if key.endswith("_IMAGE")}
    assert keys == set(fallback_images.FALLBACK_IMAGES) | set(OPTIONAL)
    contract = yaml.safe_load((ROOT / "ops/images/airgap/contract.yaml").read_text())
    # For a base, the contract has the image that we build on it.
    assert set(contract) == {BASES.get(key, key) for key in keys} | set(BUILT_ON)


def test_other_packages_or_bases_change_the_patroni_images_tag(tmp_path):
    bases = [["postgres:1", "etcd:1"], ["postgres:2", "etcd:1"], ["postgres:1", "etcd:2"]]
    assert len({built_reference(ROOT, PATRONI_IMAGE, pair) for pair in bases}) == 3
    folder = tmp_path / "compose/images/patroni"
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text("patroni==1\n")
    before = built_reference(tmp_path, PATRONI_IMAGE, bases[0])
    (folder / "requirements.txt").write_text("patroni==2\n")
    assert built_reference(tmp_path, PATRONI_IMAGE, bases[0]) != before


def test_images_belong_to_existing_profiles():
    assert set(PROFILES.values()) <= set(COMPOSE_PROFILES)
    assert set(PROFILES) <= set(read_images_env(ROOT))


@pytest.mark.parametrize("key", [*fallback_images.COMPILED, *fallback_images.TOOLS])
def test_a_compiled_image_has_the_version_of_images_env(key, repository):
    version = software_version(read_images_env(ROOT)[key])
    name = fallback_images.target(key)
    assert changed_targets(repository, "compose/images.env", version, "99.9.9") == {name}
    _, stages = parse_stages((ROOT / fallback_images.DOCKERFILE).read_text())
    assert "@v${VERSION}" in stages[f"{name}-build"].instructions[-1]


def test_a_digest_changes_no_fallback_images_tag(repository):
    versions = read_images_env(repository)
    keys = [*fallback_images.FALLBACK_IMAGES, *fallback_images.TOOLS]
    before = [fallback_images.reference(repository, key) for key in keys]
    (repository / "compose/images.env").write_text(
        "".join(f"{key}={value}@sha256:{'1' * 64}\n" for key, value in versions.items())
    )
    assert [fallback_images.reference(repository, key) for key in keys] == before


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("prom/statsd-exporter:v0.30.0", "0.30.0"),
        ("registry.test:5000/collector:0.159.0", "0.159.0"),
        ("vendor/redis_exporter:v1.69.0-alpine", "1.69.0"),
        (f"registry.test:5000/collector:0.159.0@sha256:{'1' * 64}", "0.159.0"),
    ],
)
def test_a_version_is_the_numbers_of_a_tag(reference, version):
    assert software_version(reference) == version


def test_a_tag_without_a_version_is_refused():
    with pytest.raises(ValueError, match="vendor/image:edge"):
        software_version("vendor/image:edge")


def test_only_images_env_names_the_version_of_an_image():
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    repositories = [
        re.escape(repository_and_tag(value)[0])
        for key, value in read_images_env(ROOT).items()
        if key.endswith("_IMAGE")
    ]
    # Up to two digits: `postgres:5432` is a port.
    pattern = re.compile(rf"(?<![\w/.-])(?:{'|'.join(repositories)}):(?:v?\d{{1,2}}(?!\d)|slim|latest|alpine)")
    uses = [
        f"{name}:{number}: {line.strip()}"
        for name in files
        if name not in ("compose/images.env", "uv.lock") and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1)
        if pattern.search(line) and not name.startswith("tests/unit/images/")
    ]
    assert uses == []


def test_the_version_pattern_matches_images_env():
    # Otherwise the test above proves nothing.
    for key, value in read_images_env(ROOT).items():
        if key.endswith("_IMAGE"):
            repository = re.escape(repository_and_tag(value)[0])
            assert re.search(rf"(?<![\w/.-]){repository}:(?:v?\d{{1,2}}(?!\d)|slim)", f"image: {value}")


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (
            ["#7 [redis 2/4] RUN --mount=type=secret,id=ca apt-get install -y redis-server"],
            "building, redis 2/4: installing packages",
        ),
        (
            ["#7 [redis 2/4] RUN x", "#8 [lists 1/2] RUN y", "#7 12.78 Setting up  libllvm19:amd64 ..."],
            "building, redis 2/4: Setting up libllvm19:amd64 ...",
        ),
        (["#10 exporting layers"], "writing the image"),
        (
            ["#7 [go 3/4] RUN --mount=type=cache go install x@v1"],
            "building, go 3/4: fetching and compiling Go modules",
        ),
        (["#7 [internal] load build context"], None),
        (["#7 0.33 + some noise"], None),
        (["#9 [redis 3/4] WORKDIR /data"], None),
    ],
)
def test_a_builds_output_becomes_a_short_state(lines, state):
    steps = BuildSteps()
    assert [steps.describe(line) for line in lines][-1] == state
