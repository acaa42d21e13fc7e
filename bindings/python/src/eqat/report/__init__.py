"""`eqat-report RUN_DIR...`: one HTML page of the logs and saved folders of eqat runs.

Needs NumPy; matplotlib for PNGs alone. It reads files and never loads the library.
"""

from .cli import main
from .errors import ReportError

__all__ = ["ReportError", "main"]
