"""The Debian base of the fallback images comes from the mirror that the machine's apt uses."""

from __future__ import annotations

import shutil

import pytest

from ops.images import debian_base
from ops.images.debian_base import AptSource, machine_sources, parse_print_uris, suite_lines

ONE_LINE = """\
# a comment
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian bookworm main contrib
deb http://mirror.test/debian bookworm-updates main
deb http://security.test/debian-security bookworm-security main
"""
DEB822 = """\
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.test/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.test/debian
Suites: bookworm
Components: main
"""
EXPECTED = [
    "deb http://mirror.test/debian/ trixie main",
    "deb http://mirror.test/debian/ trixie-updates main",
    "deb http://security.test/debian-security/ trixie-security main",
]


@pytest.mark.skipif(not shutil.which("apt-get"), reason="this machine has no apt")
@pytest.mark.parametrize(
    ("name", "content"), [("sources.list", ONE_LINE), ("debian.sources", DEB822)], ids=["one-line", "deb822"]
)
def test_one_line_and_deb822_sources_give_equal_suites(tmp_path, name, content):
    (tmp_path / "parts").mkdir()
    (tmp_path / "none").write_text("")
    place = tmp_path / name if name.endswith(".list") else tmp_path / "parts" / name
    place.write_text(content)
    main_list = place if name.endswith(".list") else tmp_path / "none"
    options = ["-o", f"Dir::Etc::sourcelist={main_list}", "-o", f"Dir::Etc::sourceparts={tmp_path}/parts"]
    assert suite_lines(machine_sources(*options), "bookworm") == EXPECTED


def test_another_vendors_repository_is_no_debian_mirror():
    sources = [AptSource("https://vendor.test/node", "nodistro")]
    assert suite_lines(sources, "bookworm") == []


def test_a_mirror_of_security_fixes_alone_is_not_used():
    assert suite_lines([AptSource("http://s.test/", "bookworm-security")], "bookworm") == []


def test_a_mirror_that_is_listed_twice_is_used_once():
    source = AptSource("http://m.test/debian/", "bookworm")
    assert suite_lines([source, source], "bookworm") == ["deb http://m.test/debian/ trixie main"]


def test_without_debian_mmdebstraps_default_mirror_is_used():
    assert suite_lines([AptSource("http://m.test/ubuntu/", "noble")], "") == []


def test_only_signed_indexes_are_sources():
    text = (
        "'http://m.test/debian/dists/bookworm/InRelease' m.test_debian_dists_bookworm_InRelease 0 \n"
        "'http://m.test/debian/dists/bookworm/main/binary-amd64/Packages.xz' m.test_Packages 0 \n"
        "W: a warning\n"
    )
    assert parse_print_uris(text) == [AptSource("http://m.test/debian/", "bookworm")]


def test_the_base_images_tag_changes_with_its_options(monkeypatch):
    before = debian_base.reference()
    assert debian_base.reference() == before
    monkeypatch.setattr(debian_base, "OPTIONS", (*debian_base.OPTIONS, "--include=less"))
    assert debian_base.reference() != before


def test_without_apt_the_hint_is_docker_load(monkeypatch):
    monkeypatch.setattr(debian_base.shutil, "which", lambda _: None)
    with pytest.raises(debian_base.AirgapError, match="docker load"):
        debian_base.ensure_mmdebstrap(print)


def test_a_user_without_root_gets_the_command_to_run(monkeypatch):
    monkeypatch.setattr(debian_base.shutil, "which", lambda name: None if name == "mmdebstrap" else name)
    monkeypatch.setattr(debian_base.os, "geteuid", lambda: 1000)
    with pytest.raises(debian_base.AirgapError, match="sudo apt-get install mmdebstrap"):
        debian_base.ensure_mmdebstrap(print)
