"""What can go wrong by the user's doing, or by the user's wish."""


class InputError(ValueError):
    """The input cannot be used. The message is one plain sentence: the file or value, and what to do."""


class Cancelled(Exception):
    """The user asked to stop; nothing half-written is left behind."""
