"""As many tests run at once as there are cores: one thread each."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
