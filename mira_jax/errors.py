"""The errors that a user can correct, and how messages of other libraries are quoted."""

_LENGTH = 300
"""The most characters of another library's message in ours."""


class UserError(Exception):
    """Something given from outside is wrong: the message names it and says what to do.

    Commands print the message alone and exit with code 2. Raised before anything is half-written.
    """


class ConfigError(UserError):
    """A key of a config has a wrong value.

    A config class raises it with the key relative to itself; `mira_jax.config.build` completes the path. In `problem`, `$.` stands
    for the place of the class: `$.api_key_env` is shown as `policy.endpoint.api_key_env`.
    """

    def __init__(self, key: str, problem: str, prefix: str = "", origin: str = ""):
        super().__init__(key, problem, prefix, origin)
        self.key, self.problem, self.prefix, self.origin = key, problem, prefix, origin

    @property
    def path(self) -> str:
        return f"{self.prefix}{self.key}".rstrip(".")

    def below(self, prefix: str) -> "ConfigError":
        """The same error of a class whose keys begin with `prefix`, which ends in a dot."""
        return type(self)(self.key, self.problem, prefix + self.prefix, self.origin)

    def given_by(self, origin: str) -> "ConfigError":
        """The same error, where the value is from `origin`: `--set`, a file, or "" for a default."""
        return type(self)(self.key, self.problem, self.prefix, origin)

    def message(self) -> str:
        problem = self.problem.replace("$.", self.prefix)
        return f"{self.path}: {problem}" if self.path else problem

    def __str__(self) -> str:
        return f"{self.origin}: {self.message()}" if self.origin else self.message()


class UnknownKeyError(ConfigError):
    """The config has no such key; `problem` is the nearest known one, relative to the class."""

    def message(self) -> str:
        return f"unknown key {self.path}; did you mean {self.prefix}{self.problem}?"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_LENGTH]
