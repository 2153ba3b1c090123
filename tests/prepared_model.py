"""The embedding model as an earlier start leaves it in a data directory, for tests that are not about first starts.

A start that does not find it rewrites its graph, which takes a second of a core. Made once for all tests of a run.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from models.model_files import installed_model_files, prepared_model
from router.embedding_models import MODELS_FOLDER


@cache
def _graph() -> Path:
    folder = tempfile.mkdtemp(prefix="memoryrouter-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return prepared_model(Path(folder), installed_model_files()).path


def put_model(data_dir: Path) -> None:
    """Put the model into a data directory that is still to be made; it remains a first start's."""
    data_dir.mkdir(mode=0o700)
    (data_dir / MODELS_FOLDER).mkdir()
    (data_dir / MODELS_FOLDER / _graph().name).symlink_to(_graph())
