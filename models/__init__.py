"""What things are: data types, settings, errors, text functions, the embedding model. No concurrency, no network.

Numpy's BLAS gets one thread here, before anything imports numpy: its own pool spins against ONNX Runtime's and the
event loop's. On two cores, eight clients asking `prepare` at once got less than half of the answers with it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
