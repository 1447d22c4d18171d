# shellcheck shell=bash
# Docker Engine with the compose (v2) and buildx plugins: installed, running, and usable by this user.
# Sourced by ops/stack, which calls `ensure_docker`. It changes nothing where Docker answers. It installs only on Debian
# and Ubuntu and only as root; otherwise it names the missing part and stops.

# The first compose release with `include:`, which compose/compose.yaml consists of.
# https://docs.docker.com/compose/how-tos/multiple-compose-files/include/
readonly COMPOSE_MINIMUM=2.20.0
# Debian 12 has compose v1 and no buildx: both come from this release's packages, which run on Debian 12.
readonly PLUGIN_SUITE=trixie
readonly PLUGIN_DIRECTORY=/usr/local/lib/docker/cli-plugins
readonly DOCKERD_LOG=/var/log/dockerd.log
readonly DAEMON_START_SECONDS=60

ensure_docker() {
  local problem
  problem=$(docker_problem)
  [[ -z $problem ]] && return 0

  case $problem in
    permission)
      docker_stop "this user has no permission for the Docker daemon" \
        "run 'sudo usermod -aG docker $(id -un)' and log in again, or run this command as root" ;;
    remote)
      docker_stop "the Docker daemon at ${DOCKER_HOST} does not answer" "start it, or unset DOCKER_HOST" ;;
  esac
  if [[ $(uname -s) != Linux ]]; then
    docker_stop "$(docker_reason "$problem")" "install and start Docker Desktop: https://docs.docker.com/desktop/"
  fi
  if ((EUID != 0)); then
    docker_stop "$(docker_reason "$problem")" \
      "run this command once as root, or see https://docs.docker.com/engine/install/"
  fi

  # Missing parts show one at a time: the client, then its daemon, then the plugins. A part that is still missing after
  # one installation stops the loop.
  local before=
  while [[ -n $problem && $problem != "$before" ]]; do
    before=$problem
    if [[ $problem == daemon ]]; then docker_start; else docker_install; fi
    problem=$(docker_problem)
  done
  [[ -z $problem ]] || docker_stop "$(docker_reason "$problem")" "see https://docs.docker.com/engine/install/"
}

# Prints the first missing part, one of: client, permission, remote, daemon, compose, buildx; nothing if all are there.
# One call of the client, which lists its own plugins: a second `up` stays quick.
docker_problem() {
  local answer compose
  command -v docker >/dev/null 2>&1 || { echo client; return; }
  if ! answer=$(docker info --format \
    '{{with .ServerVersion}}server={{.}}{{end}}{{range .ClientInfo.Plugins}} {{.Name}}={{.Version}}{{end}}' 2>&1); then
    case $answer in
      *"permission denied"*) echo permission; return ;;
    esac
    [[ -z ${DOCKER_HOST:-} ]] || { echo remote; return; }
    # A client without its daemon: an installed engine only needs a start.
    if command -v dockerd >/dev/null 2>&1; then echo daemon; else echo client; fi
    return
  fi
  if [[ $answer =~ \ compose=v?([0-9.]+) ]]; then compose=${BASH_REMATCH[1]}; else echo compose; return; fi
  version_at_least "$compose" "$COMPOSE_MINIMUM" || { echo compose; return; }
  [[ $answer == *" buildx="* ]] || echo buildx
}

docker_reason() {
  case $1 in
    client) echo "Docker Engine is not installed" ;;
    daemon) echo "the Docker daemon is not running" ;;
    compose) echo "the compose plugin is missing or older than ${COMPOSE_MINIMUM}" ;;
    buildx) echo "the buildx plugin is missing" ;;
    *) echo "it does not answer ($1)" ;;
  esac
}

docker_stop() {
  printf 'error: cannot use Docker: %s\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

docker_step() { printf '  docker: %s\n' "$1" >&2; }

version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# ---- installing ------------------------------------------------------------------------------------------------------

docker_install() {
  local version
  # The engine creates its networks with iptables, and pulls with the system's certificates.
  local -a engine=(docker.io iptables ca-certificates)
  # Where the kernel enforces AppArmor, containers need its parser to start; the engine's package only recommends it.
  [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) != Y ]] || engine+=(apparmor)
  export DEBIAN_FRONTEND=noninteractive
  case $(os_release ID) in
    ubuntu) docker_apt_install "${engine[@]}" docker-compose-v2 docker-buildx ;;
    debian)
      version=$(os_release VERSION_ID)
      if ((${version%%.*} >= 13)); then
        docker_apt_install "${engine[@]}" docker-cli docker-compose docker-buildx
      else
        docker_apt_install "${engine[@]}"
        docker_install_plugins
      fi ;;
    *)
      docker_stop "it is missing or incomplete, and this script installs it only on Debian and Ubuntu" \
        "see https://docs.docker.com/engine/install/" ;;
  esac
}

# One field of /etc/os-release; Debian testing and unstable have no VERSION_ID and count as the newest.
os_release() (
  # shellcheck disable=SC2034 # read by name below
  local ID='' VERSION_ID=99 VERSION_CODENAME=''
  # shellcheck source=/dev/null
  . /etc/os-release
  printf '%s\n' "${!1}"
)

docker_apt_install() {
  local -a missing=()
  local package
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  docker_step "installing ${missing[*]}"
  docker_quietly apt-get update
  docker_quietly apt-get install -y --no-install-recommends "${missing[@]}"
}

# The two plugins out of a newer Debian's packages, from the machine's own mirror. This apt has only that release as its
# source, so that it cannot upgrade anything else on the machine; it checks the signatures.
docker_install_plugins() {
  local work mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || docker_stop "this machine's apt sources have no Debian mirror" \
    "install Docker's compose and buildx plugins by hand: https://docs.docker.com/compose/install/linux/"
  # Debian 12's later keyrings have the newer release's keys.
  docker_quietly apt-get install -y --no-install-recommends debian-archive-keyring

  work=$(mktemp -d)
  # apt downloads as its own user.
  chmod 0755 "$work"
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$PLUGIN_SUITE" >"$work/sources.list"
  local -a apt=(
    apt-get
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache::archives=$work/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    # A mirror's copy may have expired; apt still checks the signatures.
    -o Acquire::Check-Valid-Until=false
    # No translations: they are not needed.
    -o Acquire::Languages=none -o APT::Sandbox::User=root
  )
  docker_step "installing the compose and buildx plugins of Debian ${PLUGIN_SUITE}"
  docker_quietly "${apt[@]}" update
  (cd "$work/debs" && docker_quietly "${apt[@]}" download docker-compose docker-buildx) || exit 1
  local deb
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  install -d -m 0755 "$PLUGIN_DIRECTORY"
  find "$work/root" -type f \( -name docker-compose -o -name docker-buildx \) -path '*/cli-plugins/*' \
    -exec install -m 0755 -t "$PLUGIN_DIRECTORY" {} +
  rm -rf "$work"
}

# The URI of the machine's Debian mirror, as apt reads it from one-line and deb822 sources.
debian_mirror() {
  apt-get --print-uris update |
    sed -n "s|^'\(.*/\)dists/$(os_release VERSION_CODENAME)/InRelease' .*|\1|p" | head -n 1
}

# Runs a command, with a line of progress every 10 s; shows its output only if it fails.
docker_quietly() {
  local log status=0 pid waited=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    ((++waited % 50)) || docker_step "… $(tail -n1 "$log" | cut -c1-100)"
  done
  wait "$pid" || status=$?
  if ((status)); then
    tail -n 20 "$log" >&2
    rm -f "$log"
    docker_stop "'$1' failed (exit ${status}); its last lines are above" \
      "fix that, then run this command again; nothing else was changed"
  fi
  rm -f "$log"
}

# ---- starting --------------------------------------------------------------------------------------------------------

docker_start() {
  docker_step "starting the daemon"
  if [[ -d /run/systemd/system ]]; then
    systemctl enable --now docker >&2
  else
    docker_start_without_init
  fi
  docker_wait
}

# No init system (a container, a bare micro-VM): the daemon gets its own session, so that it outlives this shell and
# Ctrl-C does not reach it.
docker_start_without_init() {
  # The pid file of a killed daemon prevents the next start if another process has its number:
  # https://github.com/moby/moby/issues/21914
  local pid_file=/var/run/docker.pid
  if [[ -f $pid_file ]]; then
    docker_daemon_lives "$(<"$pid_file")" && return 0 # another `up` is starting it
    rm -f "$pid_file"
  fi
  setsid nohup dockerd >>"$DOCKERD_LOG" 2>&1 </dev/null &
}

# docker_daemon_lives PID: whether the process is a running dockerd, not a zombie.
docker_daemon_lives() {
  [[ $(cat "/proc/$1/comm" 2>/dev/null) == dockerd ]] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

docker_wait() {
  local deadline=$((SECONDS + DAEMON_START_SECONDS)) tick=0
  until docker info >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      [[ ! -f $DOCKERD_LOG ]] || tail -n 20 "$DOCKERD_LOG" >&2
      docker_stop "the daemon did not answer within ${DAEMON_START_SECONDS} s" \
        "read its log: ${DOCKERD_LOG}, or 'journalctl -u docker' where systemd runs it"
    fi
    if ! ((++tick % 20)); then
      docker_step "waiting for the daemon ($((deadline - SECONDS)) s left)"
      # A daemon that another command started may have exited.
      [[ -d /run/systemd/system ]] || docker_start_without_init
    fi
    sleep 0.25
  done
}
