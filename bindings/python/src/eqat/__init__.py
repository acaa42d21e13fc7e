"""EfficientQAT: language models of 2, 3 or 4 bits that keep most of their quality.

    import eqat

    model = eqat.open("SmolLM2-135M")
    eqat.efficientqat(model, bits=2, group_size=64, calib="c4.jsonl")
    model.save("SmolLM2-135M-w2g64")
    print(model.perplexity("wiki.txt"))

This is libeqat's C interface with Python's manners; contracts of shapes, units and ranges stand in
its headers.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import *  # noqa: F403
    from .api import __all__ as __all__
else:
    # The library is loaded by the first use of a name, not by the import: eqat.report needs none.

    def __getattr__(name: str) -> Any:
        """Asked once for each name, which is the module's own from then on."""
        if importlib.util.find_spec(f"{__name__}.{name}"):
            return importlib.import_module(f"{__name__}.{name}")
        api = importlib.import_module(f"{__name__}.api")
        try:
            found = globals()[name] = getattr(api, name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        return found

    def __dir__() -> "list[str]":
        return sorted({*globals(), *importlib.import_module(f"{__name__}.api").__all__})
