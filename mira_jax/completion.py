"""Prints a script that completes `mira` in a shell: commands, flags, the keys of --set and their choices.

    eval "$(mira completion bash)"    in ~/.bashrc
    eval "$(mira completion zsh)"     in ~/.zshrc, after compinit

The script is static, so completion does not start Python. Print the script again after an update.
"""

import dataclasses
import sys
from typing import Literal

from mira_jax import cli, commands, schema
from mira_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CompletionConfig:
    shell: Literal["bash", "zsh"] = "bash"
    """The shell to generate the script for."""


def main(config: CompletionConfig) -> int:
    print(script(config.shell))
    return 0


def script(shell: str) -> str:
    """The completion script. Commands whose extra is not installed are completed by name only."""
    lines = ["autoload -U +X bashcompinit && bashcompinit"] if shell == "zsh" else []
    lines += [
        "_mira() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" words=""',
        "  local first=1",
        "  # The arguments of preflight are those of the command after it.",
        '  if [ "$command" = preflight ] && [ "$COMP_CWORD" -gt 1 ]; then first=2; command="${COMP_WORDS[2]}"; fi',
        '  if [ "$COMP_CWORD" -eq "$first" ]; then',
        f'    words="{" ".join(cli.COMMANDS)} --help --version"',
        '  elif [ "$cur" = "=" ] || [ "$prev" = "=" ]; then',
        '    [ "$cur" = "=" ] && prev="${COMP_WORDS[COMP_CWORD-1]}" && cur="" || prev="${COMP_WORDS[COMP_CWORD-2]}"',
        '    case "$command $prev" in',
    ]
    known = {name: command for name in cli.COMMANDS if (command := _load(name))}
    for name, command in known.items():
        lines += [
            f'      "{name} {key.path}") words="{" ".join(key.choices)}" ;;'
            for key in _distinct(schema.keys(command.config_type))
            if key.choices
        ]
    lines += ["    esac", '  elif [ "$prev" = "--set" ]; then', '    case "$command" in']
    for name, command in known.items():
        keys = " ".join(f"{key.path}=" for key in _distinct(schema.keys(command.config_type)))
        lines.append(f'      {name}) words="{keys}" ;;')
    lines += ["    esac", '  elif [[ "$cur" == -* ]]; then', '    case "$command" in']
    for name, command in known.items():
        lines.append(f'      {name}) words="{" ".join(commands.flags_of(command))}" ;;')
    lines += [
        "    esac",
        "  fi",
        '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        '  if [[ "${COMPREPLY[0]}" == *= ]] && type compopt > /dev/null 2>&1; then compopt -o nospace; fi',
        "}",
        "complete -o default -F _mira mira",
    ]
    return "\n".join(lines)


def _distinct(keys: list[schema.Key]) -> list[schema.Key]:
    """The keys without those that contain a name chosen by the user, one for each path."""
    return list({key.path: key for key in keys if not {"NAME", "N"} & set(key.path.split("."))}.values())


def _load(name: str) -> commands.Command | None:
    try:
        return cli.load(name)
    except UserError:
        return None


COMMAND = commands.Command("completion", main, CompletionConfig, __doc__, positional=("shell",))

if __name__ == "__main__":
    sys.exit(COMMAND.run())
