"""The build: a wheel brings the checkout's specs and reference results, as afno_repro/shipped."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("experiments", "results/reference")


class Build(build_py):
    """Puts what ships beside the modules; an editable install reads the checkout's own folders."""

    def run(self) -> None:
        """Copy modules and what ships, anew: what an earlier build left in its folder may be there no more."""
        package = Path(self.build_lib, "afno_repro")
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)
            for folder in SHIPPED:
                shutil.copytree(folder, package / "shipped" / folder, ignore=shutil.ignore_patterns(".*"))
        super().run()


setup(cmdclass={"build_py": Build})
