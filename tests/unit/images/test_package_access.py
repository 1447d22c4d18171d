"""A build gets this machine's settings for package mirrors as secrets."""

from __future__ import annotations

import subprocess

import pytest

from ops.images.mirrors import (
    apt_configuration,
    ca_bundle,
    go_modules,
    package_index,
    proxy_arguments,
    shell_assignments,
    write_build_secrets,
)


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "etc/uv").mkdir(parents=True)
    return tmp_path / "etc"


@pytest.fixture
def home(tmp_path):
    for folder in (".config/pip", ".config/uv"):
        (tmp_path / "home" / folder).mkdir(parents=True)
    return tmp_path / "home"


def test_without_settings_the_tools_default_index_is_used(home, etc):
    assert package_index({}, home, etc) == {}


def test_uv_uses_pips_index(home, etc):
    (etc / "pip.conf").write_text("[global]\nindex-url = https://u:p@index.test/simple\ntrusted-host = index.test\n")
    settings = package_index({}, home, etc)
    assert settings["UV_DEFAULT_INDEX"] == settings["PIP_INDEX_URL"] == "https://u:p@index.test/simple"
    assert settings["UV_INSECURE_HOST"] == settings["PIP_TRUSTED_HOST"] == "index.test"


def test_a_users_pip_file_wins_over_the_systems(home, etc):
    (etc / "pip.conf").write_text("[global]\nindex-url = https://system.test/simple\n")
    (home / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://user.test/simple\n")
    assert package_index({}, home, etc)["UV_DEFAULT_INDEX"] == "https://user.test/simple"


def test_uvs_file_wins_over_pips_and_a_variable_over_both(home, etc):
    (etc / "pip.conf").write_text("[global]\nindex-url = https://pip.test/simple\n")
    uv_file = '[[index]]\nurl = "https://uv.test/simple"\ndefault = true\n[[index]]\nurl = "https://more.test/simple"\n'
    (home / ".config/uv/uv.toml").write_text(uv_file)
    settings = package_index({}, home, etc)
    assert (settings["UV_DEFAULT_INDEX"], settings["UV_INDEX"]) == (
        "https://uv.test/simple",
        "https://more.test/simple",
    )
    variable = {"PIP_INDEX_URL": "https://variable.test/simple"}
    assert package_index(variable, home, etc)["UV_DEFAULT_INDEX"] == "https://variable.test/simple"


def test_gos_variables_win_over_its_file(home):
    (home / ".config/go").mkdir(parents=True)
    (home / ".config/go/env").write_text("GOPROXY=https://file.test\nGOSUMDB=off\nGOFLAGS=-mod=vendor\n")
    assert go_modules({}, home) == {"GOPROXY": "https://file.test", "GOSUMDB": "off"}
    assert go_modules({"GOPROXY": "https://variable.test"}, home)["GOPROXY"] == "https://variable.test"
    assert go_modules({"GOENV": str(home / "none")}, home) == {}


def test_a_password_with_shell_characters_is_quoted():
    url = "https://u:p$HOME'`x`@index.test/simple"
    script = shell_assignments({"PIP_INDEX_URL": url}) + 'printf %s "$PIP_INDEX_URL"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == url


def test_a_builds_apt_gets_only_the_machines_proxies():
    proxy = 'Acquire::http::Proxy "http://proxy.test:3128";\n'
    dump = f'{proxy}Acquire::https::Proxy "";\nAPT::Architecture "amd64";\n'
    assert apt_configuration(dump, has_ca=False) == proxy


def test_a_builds_apt_reads_certificates_from_the_secret():
    assert apt_configuration("", has_ca=True) == 'Acquire::https::CaInfo "/run/secrets/ca";\n'


def test_a_named_certificate_file_wins_if_it_exists(tmp_path):
    system, named = tmp_path / "system.crt", tmp_path / "named.crt"
    system.write_text("s")
    assert ca_bundle({"SSL_CERT_FILE": str(named)}, [str(system)]) == system
    named.write_text("n")
    assert ca_bundle({"SSL_CERT_FILE": str(named)}, [str(system)]) == named
    assert ca_bundle({}, [str(tmp_path / "none")]) is None


def test_proxy_variables_keep_their_case():
    environ = {"https_proxy": "http://proxy.test", "NO_PROXY": "localhost", "HTTP_PROXY": "", "PATH": "/bin"}
    assert proxy_arguments(environ) == {"https_proxy": "http://proxy.test", "NO_PROXY": "localhost"}


def test_secrets_are_private_and_never_empty(tmp_path, home):
    # BuildKit ignores a secret whose file is empty.
    secrets = write_build_secrets(tmp_path, {"PIP_INDEX_URL": "https://index.test"}, home)
    assert {"apt", "modules", "package_index"} <= set(secrets)
    written = [path for path in secrets.values() if path.parent == tmp_path]
    assert all(path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size for path in written)
