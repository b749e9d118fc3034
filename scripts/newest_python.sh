#!/usr/bin/env bash
# Prints the path of the newest CPython from 3.12 on that this machine has, on PATH or from pyenv. Fails if there is none.
set -euo pipefail
for version in 3.14 3.13 3.12; do
  for candidate in "$(command -v "python$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version"; do
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$candidate"
      exit
    fi
  done
done
echo "no Python from 3.12 on was found, on PATH or from pyenv" >&2
exit 1
