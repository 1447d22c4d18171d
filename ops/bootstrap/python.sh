# shellcheck shell=bash
# The Python environment, `.venv`, from uv.lock. Sourced by ops/stack.

# python_environment GROUP: `.venv` holds what the dependency group `ops` (to run the stack) or `dev` (to test it) names.
# The lock's hashes are checked, and packages come from the index that this machine is configured for.
python_environment() {
  local group=$1 stamp requirements
  trust_system_certificates
  stamp="$STACK_ROOT/.venv/.synced-$group"
  # Nothing to do while the lock is older than the last sync: an `up` that changes nothing stays quick.
  if [ -x "$STACK_ROOT/.venv/bin/python" ] && [ "$stamp" -nt "$STACK_ROOT/uv.lock" ] && [ "$stamp" -nt "$STACK_ROOT/pyproject.toml" ]; then
    return
  fi
  install_uv
  use_configured_index
  echo "Python environment ($group) from uv.lock …" >&2
  [ -x "$STACK_ROOT/.venv/bin/python" ] || uv venv --quiet --python '>=3.11,<3.14' "$STACK_ROOT/.venv"
  requirements=$(mktemp)
  if [ "$group" = dev ]; then
    uv export --project "$STACK_ROOT" --frozen --quiet --no-emit-project --all-groups --output-file "$requirements"
    uv pip sync --quiet --python "$STACK_ROOT/.venv" --require-hashes "$requirements"
    # The project itself: DAGs and tests import airflow_ha.
    echo "$STACK_ROOT/src" >"$("$STACK_ROOT/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/airflow_ha.pth"
    touch "$STACK_ROOT/.venv/.synced-ops"
  else
    uv export --project "$STACK_ROOT" --frozen --quiet --no-emit-project --only-group "$group" --output-file "$requirements"
    uv pip install --quiet --python "$STACK_ROOT/.venv" --require-hashes -r "$requirements"
  fi
  rm -f "$requirements"
  touch "$stamp"
}

# uv, at the version in compose/images.env, in a folder of the project's own.
install_uv() {
  local version home
  version=$(sed -n 's/^UV_VERSION=//p' "$STACK_ROOT/compose/images.env")
  home="$STACK_ROOT/.bootstrap"
  if [ "$("$home/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$version" ]; then
    echo "Installing uv $version …" >&2
    if ! python3 -m venv --clear "$home" >/dev/null 2>&1; then
      # Debian and Ubuntu keep venv apart from Python.
      if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: python3 cannot make a virtual environment. Install the package python3-venv, and run this again." >&2
        exit 2
      fi
      { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends python3-venv; } >&2
      python3 -m venv --clear "$home"
    fi
    "$home/bin/pip" install --quiet --disable-pip-version-check "uv==$version"
  fi
  uv() { "$STACK_ROOT/.bootstrap/bin/uv" "$@"; }
}

# A proxy that inspects TLS signs with a certificate that only the system's own store knows.
trust_system_certificates() {
  export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
}

# uv does not read pip's settings: hand over the index that the machine names there.
use_configured_index() {
  local index
  if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$("$STACK_ROOT/.bootstrap/bin/pip" config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ]; then
      export UV_DEFAULT_INDEX=$index
    fi
  fi
}
