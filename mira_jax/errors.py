"""Errors that the user can correct, and how messages of other libraries are quoted."""

from collections.abc import Sequence

_LENGTH = 300
"""Maximum number of characters quoted from another library's message."""


class UserError(Exception):
    """Invalid input. The message names what is wrong and gives a remedy.

    Commands print only the message and exit with code 2. The error is raised before any output is partly written.
    """


class ConfigError(UserError):
    """A config key has an invalid value.

    A config class raises it with the key relative to itself, and `mira_jax.config.build` completes the path. In `problem`,
    `$.` stands for the path of the class: `$.api_key_env` is shown as `policy.endpoint.api_key_env`.
    """

    def __init__(self, key: str, problem: str, prefix: str = "", origin: str = ""):
        super().__init__(key, problem, prefix, origin)
        self.key, self.problem, self.prefix, self.origin = key, problem, prefix, origin

    @property
    def path(self) -> str:
        return f"{self.prefix}{self.key}".rstrip(".")

    def below(self, prefix: str) -> "ConfigError":
        """The same error with `prefix`, which ends in a dot, in front of its keys."""
        return type(self)(self.key, self.problem, prefix + self.prefix, self.origin)

    def given_by(self, origin: str) -> "ConfigError":
        """The same error with the origin of the value: `--set`, a file, or "" for a default."""
        return type(self)(self.key, self.problem, self.prefix, origin)

    def message(self) -> str:
        problem = self.problem.replace("$.", self.prefix)
        return f"{self.path}: {problem}" if self.path else problem

    def __str__(self) -> str:
        return f"{self.origin}: {self.message()}" if self.origin else self.message()


class UserErrors(UserError):
    """Several errors that were found together. Its message has a line for each."""

    def __init__(self, errors: Sequence[UserError]):
        super().__init__("\n".join(map(str, errors)))
        self.errors = list(errors)


def raise_all(errors: Sequence[UserError]) -> None:
    """Raises the errors, if there are any: a single one as it is."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserErrors(errors)


class UnknownKeyError(ConfigError):
    """The config has no such key. `problem` is the nearest known key, relative to the class."""

    def message(self) -> str:
        return f"unknown key {self.path}; did you mean {self.prefix}{self.problem}?"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_LENGTH]
