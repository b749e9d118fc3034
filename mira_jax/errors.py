"""The one kind of error that a user can mend."""


class UserError(Exception):
    """Something given from outside is wrong: the message names it and says what to do.

    Commands print the message alone and exit with code 2. Raised before anything is half-written.
    """
