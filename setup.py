"""The build: a wheel brings the checkout's specs and reference results, as afno_repro/shipped."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("experiments", "results/reference")


class Build(build_py):
    """Puts what ships beside the modules; an editable install reads the checkout's own folders."""

    def run(self) -> None:
        """Copy modules as always, then what ships, anew."""
        super().run()
        if not self.editable_mode:
            shipped = Path(self.build_lib, "afno_repro", "shipped")
            shutil.rmtree(shipped, ignore_errors=True)
            for folder in SHIPPED:
                shutil.copytree(folder, shipped / folder)


setup(cmdclass={"build_py": Build})
