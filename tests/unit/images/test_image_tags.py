"""A tag names what an image was made of: unchanged inputs are never built again, changed ones always are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ops.images import fallback_images
from ops.images.build import build_progress, content_tag, values_tag
from ops.images.resolve import BASES, OPTIONAL, PROFILES, airflow_reference, patroni_reference
from ops.images.versions import read_images_env, software_version
from ops.services import PROFILES as COMPOSE_PROFILES

ROOT = Path(__file__).resolve().parents[3]
AIRFLOW_INPUTS = (
    "compose/images/airflow/Dockerfile",
    "pyproject.toml",
    "uv.lock",
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


def test_the_same_inputs_in_another_folder_have_the_same_tag(inputs, tmp_path_factory):
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


def test_what_python_leaves_beside_the_sources_does_not_change_the_tag(inputs):
    before = tag(inputs)
    (inputs / "src/package/__pycache__").mkdir()
    (inputs / "src/package/__pycache__/module.cpython-313.pyc").write_text("compiled")
    assert tag(inputs) == before


def test_values_and_their_order_change_the_tag(inputs):
    assert len({tag(inputs), tag(inputs, "a", "b"), tag(inputs, "b", "a"), tag(inputs, "ab")}) == 4
    assert re.fullmatch(r"[0-9a-f]{12}", values_tag(["a"]))


@pytest.mark.parametrize("changed", AIRFLOW_INPUTS)
def test_the_airflow_images_tag_changes_with_its(changed, tmp_path):
    for name in ("compose/images", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    before = airflow_reference(tmp_path, "base:1", "1.0")
    with (tmp_path / changed).open("a") as file:
        file.write("\n# changed\n")
    assert airflow_reference(tmp_path, "base:1", "1.0") != before


def test_the_airflow_images_tag_changes_with_its_base_and_with_uv():
    references = {airflow_reference(ROOT, base, uv) for base in ("base:1", "base:2") for uv in ("1.0", "2.0")}
    assert len(references) == 4


@pytest.mark.parametrize("key", fallback_images.STAND_INS)
def test_every_stand_in_has_a_dockerfile_that_takes_its_base_as_an_argument(key):
    dockerfile = (ROOT / "ops/images/airgap" / fallback_images.STAND_INS[key] / "Dockerfile").read_text()
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    assert bases - {"scratch"} == {"${DEBIAN_IMAGE}"}


@pytest.mark.parametrize("stage", ["lists", "busybox", "go"])
def test_a_stage_that_several_stand_ins_have_is_the_same_in_all_and_so_built_once(stage):
    stages = [
        found[0]
        for path in (ROOT / "ops/images/airgap").glob("*/Dockerfile")
        if (found := re.findall(rf"^FROM \S+ AS {stage}\n.*?(?=\n\n|\Z)", path.read_text(), re.DOTALL | re.MULTILINE))
    ]
    assert len(stages) > 1
    assert len(set(stages)) == 1


def test_every_image_of_images_env_has_a_contract_and_a_stand_in_unless_it_can_be_left_out():
    keys = {key for key in read_images_env(ROOT) if key.endswith("_IMAGE")}
    assert keys == set(fallback_images.STAND_INS) | set(OPTIONAL)
    contract = yaml.safe_load((ROOT / "ops/images/airgap/contract.yaml").read_text())
    # What is only built on is in the contract as what we build on it.
    assert set(contract) == {BASES.get(key, key) for key in keys}


def test_the_patroni_images_name_changes_with_its_packages_and_either_of_its_bases(tmp_path):
    bases = [["postgres:1", "etcd:1"], ["postgres:2", "etcd:1"], ["postgres:1", "etcd:2"]]
    assert len({patroni_reference(ROOT, pair) for pair in bases}) == 3
    folder = tmp_path / "compose/images/patroni"
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text("patroni==1\n")
    before = patroni_reference(tmp_path, bases[0])
    (folder / "requirements.txt").write_text("patroni==2\n")
    assert patroni_reference(tmp_path, bases[0]) != before


def test_images_belong_to_profiles_that_exist():
    assert set(PROFILES.values()) <= set(COMPOSE_PROFILES)
    assert set(PROFILES) <= set(read_images_env(ROOT))


@pytest.mark.parametrize("key", fallback_images.COMPILED)
def test_a_compiled_stand_in_is_of_the_very_version_in_images_env(key, tmp_path):
    name = fallback_images.STAND_INS[key]
    shutil.copytree(ROOT / "ops/images/airgap" / name, tmp_path / "ops/images/airgap" / name)
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose/images.env").write_text(f"{key}=vendor/image:v1.2.3\n")
    before = fallback_images.reference(tmp_path, key)
    (tmp_path / "compose/images.env").write_text(f"{key}=vendor/image:v1.2.4\n")
    assert fallback_images.reference(tmp_path, key) != before
    assert "${VERSION}" in (ROOT / "ops/images/airgap" / name / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("prom/statsd-exporter:v0.30.0", "0.30.0"),
        ("registry.test:5000/collector:0.159.0", "0.159.0"),
        ("vendor/redis_exporter:v1.69.0-alpine", "1.69.0"),
    ],
)
def test_the_version_is_the_tags_numbers(reference, version):
    assert software_version(reference) == version


def test_a_tag_without_a_version_is_refused_by_name():
    with pytest.raises(ValueError, match="vendor/image:edge"):
        software_version("vendor/image:edge")


def test_no_file_but_images_env_names_a_version_of_an_image():
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    repositories = [
        re.escape(value.rsplit(":", 1)[0]) for key, value in read_images_env(ROOT).items() if key.endswith("_IMAGE")
    ]
    # Up to two digits: `postgres:5432` is a port.
    pattern = re.compile(rf"(?<![\w/.-])(?:{'|'.join(repositories)}):(?:v?\d{{1,2}}(?!\d)|slim|latest|alpine)")
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in files
        if name not in ("compose/images.env", "uv.lock") and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1)
        if pattern.search(line) and not name.startswith("tests/unit/images/")
    ]
    assert found == []


def test_the_version_pattern_would_find_one():
    # The test above proves something only if its pattern matches what images.env itself says.
    for key, value in read_images_env(ROOT).items():
        if key.endswith("_IMAGE"):
            repository = re.escape(value.rsplit(":", 1)[0])
            assert re.search(rf"(?<![\w/.-]){repository}:(?:v?\d{{1,2}}(?!\d)|slim)", f"image: {value}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "#7 [stage-0 2/4] RUN --mount=type=secret,id=ca apt-get install -y redis-server",
            "redis: installing packages",
        ),
        ("#7 12.78 Setting up  libllvm19:amd64 ...", "redis: Setting up libllvm19:amd64 ..."),
        ("#10 exporting layers", "redis: writing the image"),
        ("#7 [go 3/4] RUN --mount=type=cache go install x@v1", "redis: fetching and compiling Go modules"),
        ("#7 [internal] load build context", None),
        ("#7 0.33 + some noise", None),
        ("#9 [stage-0 3/4] WORKDIR /data", None),
    ],
)
def test_a_build_says_what_it_is_doing_in_words_for_people(line, said):
    assert build_progress("redis", line) == said
