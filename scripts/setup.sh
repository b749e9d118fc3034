#!/usr/bin/env bash
# Makes the virtual environment $VENV with the extras $1, and finds or installs a headless Chromium.
# Versions are those of constraints.txt; the arguments after $1 are pins that replace its own: NAME==VERSION.
# Does nothing when all is in place.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-dev}
python=${PYTHON:-python3}
venv=${VENV:-.venv}

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

stamp="$venv/installed-$(echo "$extras" | tr ',' '-')"
pins=("${@:2}")
wanted=$( (cat pyproject.toml constraints.txt scripts/setup.sh; echo "${pins[@]}") | cksum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "Python 3.11 or newer is needed; give its path: make PYTHON=/path/to/python3.11 ..."
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "Installing the distribution's venv module ..."
      (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv) >/dev/null || fail "apt-get could not install python3-venv"
    else
      fail "this Python has no venv module; install it, for example: sudo apt-get install python3-venv"
    fi
  fi
  "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv "$venv"
  say "Installing the pinned packages into $venv (a few minutes the first time) ..."
  grep -v -i -E "^($(IFS='|'; echo "${pins[*]%%==*}"))==" constraints.txt > "$venv/constraints.txt" || true
  printf '%s\n' "${pins[@]}" >> "$venv/constraints.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$venv/constraints.txt" -e ".[$extras]" || fail "pip could not install the packages; its message is above"
  # Only the pages in it are used: what the package itself depends on is left out.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps miniwob || fail "pip could not install miniwob; its message is above"
  echo "$wanted" > "$stamp"
fi

find_browser() { "$venv/bin/python" -m rollouts.web.browser >/dev/null 2>&1; }

if ! find_browser; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing the distribution's headless Chromium ..."
    apt-get update >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium-headless-shell >/dev/null 2>&1 \
      || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium >/dev/null 2>&1 || true
  fi
  if ! find_browser; then
    say "Downloading Playwright's headless Chromium ..."
    # As root with the system libraries that it needs, which a bare machine lacks.
    with_libraries=$([ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo --with-deps || true)
    "$venv/bin/python" -m playwright install $with_libraries chromium-headless-shell >/dev/null 2>&1 || true
  fi
  find_browser || "$venv/bin/python" -m rollouts.web.browser || exit 2
fi
