"""The one exception that is written for the person at the terminal."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line: it names the file, key or value at fault and the remedy. The command line prints
    it without a traceback and exits with status 1.
    """
