"""The one error that the commands show as a sentence, without a traceback."""


class UserError(ValueError):
    """Something that the user can mend: an option, a file or a folder. The message is one clear sentence."""
