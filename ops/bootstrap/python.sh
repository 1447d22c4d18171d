# shellcheck shell=bash
# The Python environment, `.venv`, from uv.lock. Sourced by ops/stack.

# python_environment GROUP: `.venv` has the packages of the dependency group `ops` (to run the stack) or `dev` (to test
# it), checked against the lock's hashes, from the index that this machine is configured for.
python_environment() {
  local group=$1 stamp requirements
  trust_system_certificates
  stamp="$STACK_ROOT/.venv/.synced-$group"
  # No sync while the lock is older than the last one: an `up` that changes nothing stays quick.
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

# uv, with the version and hashes of uv-requirements.txt, in the project's folder.
install_uv() {
  local requirements version home
  requirements="$STACK_ROOT/ops/bootstrap/uv-requirements.txt"
  version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$requirements")
  home="$STACK_ROOT/.bootstrap"
  if [ "$("$home/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$version" ]; then
    echo "Installing uv $version …" >&2
    if ! python3 -m venv --clear "$home" >/dev/null 2>&1; then
      # Debian and Ubuntu have venv in a separate package.
      if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: cannot create a virtual environment: python3 has no venv" >&2
        echo "hint: install the package python3-venv, then run this again" >&2
        exit 2
      fi
      { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends python3-venv; } >&2
      python3 -m venv --clear "$home"
    fi
    "$home/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary uv -r "$requirements"
  fi
  uv() { "$STACK_ROOT/.bootstrap/bin/uv" "$@"; }
}

# Only the system's store has the certificate of a proxy that inspects TLS.
trust_system_certificates() {
  export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
}

# uv does not read pip's settings: pass on the index that they name.
use_configured_index() {
  local index
  if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    index=${PIP_INDEX_URL:-$("$STACK_ROOT/.bootstrap/bin/pip" config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ]; then
      export UV_DEFAULT_INDEX=$index
    fi
  fi
}
