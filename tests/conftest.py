"""As many tests run at once as there are cores: one thread each, and none of a command's threads turns in circles where it waits."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
