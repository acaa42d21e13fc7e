"""Every public name of the package. To import this module loads the library."""

from .context import Context
from .data import CalibrationData
from .errors import (
    BackendError,
    Cancelled,
    Error,
    Exists,
    FileError,
    FormatError,
    InvalidArgument,
    NotFound,
    NumericError,
    OutOfMemory,
    Unsupported,
)
from .generation import Generation
from .jobs import E2EQP, BlockAP
from .library import __version__, library_version
from .model import Batch, Model, open, rtn
from .optimizer import Optimizer
from .quantizer import Quantizer
from .recipes import block_ap, e2e_qp, efficientqat
from .tape import Tape
from .tensor import Tensor, from_dlpack
from .tokenizer import Tokenizer

__all__ = [
    "BackendError",
    "Batch",
    "BlockAP",
    "CalibrationData",
    "Cancelled",
    "Context",
    "E2EQP",
    "Error",
    "Exists",
    "FileError",
    "FormatError",
    "Generation",
    "InvalidArgument",
    "Model",
    "NotFound",
    "NumericError",
    "Optimizer",
    "OutOfMemory",
    "Quantizer",
    "Tape",
    "Tensor",
    "Tokenizer",
    "Unsupported",
    "__version__",
    "block_ap",
    "e2e_qp",
    "efficientqat",
    "from_dlpack",
    "library_version",
    "open",
    "rtn",
]
