"""What ``tenmeg.compress`` returns."""

from functools import cached_property

from compressor.run.compress import Outcome
from edge_demo import runtime


class Made(Outcome):
    """What a run has made, and the package that it left, opened as a device opens it when it is first asked for."""

    @cached_property
    def package(self) -> runtime.Package:
        """The package."""
        return runtime.load(self.package_dir)
