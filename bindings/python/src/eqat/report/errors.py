"""The one kind of error that a user sees."""


class ReportError(Exception):
    """One line: the file or option at fault, what was found, what was expected."""
