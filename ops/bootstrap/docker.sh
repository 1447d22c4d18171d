# shellcheck shell=bash
# Docker Engine with the compose (v2) and buildx plugins: there, running, and ours to use.
# Sourced by ops/stack, which calls `ensure_docker`. Changes nothing where Docker already answers; installs only on
# Debian and Ubuntu, and only as root; everywhere else it says what is missing and stops.

# The first compose release that reads `include:`, which compose/compose.yaml is made of.
# https://docs.docker.com/compose/how-tos/multiple-compose-files/include/
readonly COMPOSE_MINIMUM=2.20.0
# Debian 12's own compose is v1 and it has no buildx: both are taken from this release's packages, which run there.
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
      docker_stop "this user may not talk to the Docker daemon." \
        "Run 'sudo usermod -aG docker $(id -un)' and log in again, or run this command as root." ;;
    remote)
      docker_stop "the Docker daemon at ${DOCKER_HOST} does not answer." "Start it, or unset DOCKER_HOST." ;;
  esac
  if [[ $(uname -s) != Linux ]]; then
    docker_stop "$(docker_says "$problem")" "Install and start Docker Desktop: https://docs.docker.com/desktop/"
  fi
  if ((EUID != 0)); then
    docker_stop "$(docker_says "$problem")" \
      "Run this command as root once and it is put right, or see https://docs.docker.com/engine/install/"
  fi

  # What is missing shows one at a time: a client, then its daemon, then the plugins. What stays after it was put right
  # once is beyond us.
  local before=
  while [[ -n $problem && $problem != "$before" ]]; do
    before=$problem
    if [[ $problem == daemon ]]; then docker_start; else docker_install; fi
    problem=$(docker_problem)
  done
  [[ -z $problem ]] || docker_stop "$(docker_says "$problem")" "See https://docs.docker.com/engine/install/"
}

# Prints the first thing that is missing, one of: client, permission, remote, daemon, compose, buildx; nothing if all is
# well. One call of the client (it lists its own plugins), so that a second `up` does not notice the check.
docker_problem() {
  local answer compose
  command -v docker >/dev/null 2>&1 || { echo client; return; }
  if ! answer=$(docker info --format \
    '{{with .ServerVersion}}server={{.}}{{end}}{{range .ClientInfo.Plugins}} {{.Name}}={{.Version}}{{end}}' 2>&1); then
    case $answer in
      *"permission denied"*) echo permission; return ;;
    esac
    [[ -z ${DOCKER_HOST:-} ]] || { echo remote; return; }
    # A client without its daemon: the installed engine only has to be started.
    if command -v dockerd >/dev/null 2>&1; then echo daemon; else echo client; fi
    return
  fi
  if [[ $answer =~ \ compose=v?([0-9.]+) ]]; then compose=${BASH_REMATCH[1]}; else echo compose; return; fi
  version_at_least "$compose" "$COMPOSE_MINIMUM" || { echo compose; return; }
  [[ $answer == *" buildx="* ]] || echo buildx
}

docker_says() {
  case $1 in
    client) echo "Docker Engine is not installed." ;;
    daemon) echo "the Docker daemon is not running." ;;
    compose) echo "Docker's compose plugin is missing or older than ${COMPOSE_MINIMUM}." ;;
    buildx) echo "Docker's buildx plugin is missing." ;;
    *) echo "Docker does not answer ($1)." ;;
  esac
}

docker_stop() {
  printf 'Docker: %s\n%s\n' "$1" "$2" >&2
  exit 1
}

docker_step() { printf '  docker: %s\n' "$1" >&2; }

version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# ---- installing ------------------------------------------------------------------------------------------------------

docker_install() {
  local version
  # The engine makes its networks with iptables, and pulls with the system's certificates.
  local -a engine=(docker.io iptables ca-certificates)
  # Where the kernel enforces AppArmor, no container starts without its parser, which the engine only recommends.
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
      docker_stop "Docker is missing or incomplete, and it can be installed by itself on Debian and Ubuntu only." \
        "See https://docs.docker.com/engine/install/" ;;
  esac
}

# One field of /etc/os-release; testing and unstable Debian have no VERSION_ID and count as the newest.
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

# The two plugins out of a newer Debian's packages: fetched from the machine's own mirror by an apt that knows nothing
# but that release, so that nothing else on the machine can be upgraded by it; apt checks the signatures.
docker_install_plugins() {
  local work mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || docker_stop "no Debian mirror in this machine's apt sources." \
    "Install Docker's compose and buildx plugins by hand: https://docs.docker.com/compose/install/linux/"
  # Debian 12's later keyrings hold the newer release's keys.
  docker_quietly apt-get install -y --no-install-recommends debian-archive-keyring

  work=$(mktemp -d)
  # apt drops to its own user for downloads.
  chmod 0755 "$work"
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$PLUGIN_SUITE" >"$work/sources.list"
  local -a apt=(
    apt-get
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache::archives=$work/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    # A mirror's copy may be past its date; the signatures are checked all the same.
    -o Acquire::Check-Valid-Until=false
    # The index of a whole release in one file, without translations.
    -o Acquire::Languages=none -o APT::Sandbox::User=root
  )
  docker_step "taking the compose and buildx plugins from Debian ${PLUGIN_SUITE}"
  docker_quietly "${apt[@]}" update
  (cd "$work/debs" && docker_quietly "${apt[@]}" download docker-compose docker-buildx) || exit 1
  local deb
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  install -d -m 0755 "$PLUGIN_DIRECTORY"
  find "$work/root" -type f \( -name docker-compose -o -name docker-buildx \) -path '*/cli-plugins/*' \
    -exec install -m 0755 -t "$PLUGIN_DIRECTORY" {} +
  rm -rf "$work"
}

# The URI of the machine's Debian mirror, as apt itself reads it from whatever form the sources have.
debian_mirror() {
  apt-get --print-uris update |
    sed -n "s|^'\(.*/\)dists/$(os_release VERSION_CODENAME)/InRelease' .*|\1|p" | head -n 1
}

# Runs a command with its output kept for the case that it fails, and a line of progress every few seconds.
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
    docker_stop "'$1' failed (exit ${status}); its last lines are above." \
      "Nothing else was changed; run it again once that is cured."
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

# No init system (a container, a bare micro-VM): the daemon becomes a session of its own, so that it outlives this shell
# and Ctrl-C does not reach it.
docker_start_without_init() {
  # A pid file that a killed daemon left behind, whose number another process may have by now, keeps the next from
  # starting: https://github.com/moby/moby/issues/21914
  local pid_file=/var/run/docker.pid
  if [[ -f $pid_file ]]; then
    docker_daemon_lives "$(<"$pid_file")" && return 0 # starting already: another `up` was faster
    rm -f "$pid_file"
  fi
  setsid nohup dockerd >>"$DOCKERD_LOG" 2>&1 </dev/null &
}

# docker_daemon_lives PID: whether the process is a dockerd that runs; a killed one that nobody has reaped yet does not.
docker_daemon_lives() {
  [[ $(cat "/proc/$1/comm" 2>/dev/null) == dockerd ]] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

docker_wait() {
  local deadline=$((SECONDS + DAEMON_START_SECONDS)) tick=0
  until docker info >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      [[ ! -f $DOCKERD_LOG ]] || tail -n 20 "$DOCKERD_LOG" >&2
      docker_stop "the daemon did not answer within ${DAEMON_START_SECONDS} s." \
        "Its log: ${DOCKERD_LOG}, or 'journalctl -u docker' where systemd runs it."
    fi
    if ! ((++tick % 20)); then
      docker_step "waiting for the daemon ($((deadline - SECONDS)) s left)"
      # The one that another command was starting may have died on the way.
      [[ -d /run/systemd/system ]] || docker_start_without_init
    fi
    sleep 0.25
  done
}
