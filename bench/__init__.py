"""Benchmarks, one question a file."""

from __future__ import annotations

import models as models  # before numpy, whose BLAS it gives the one thread that it has in the server
