"""tenmeg from Python: what the commands do, called with paths, hub ids, or models and rows that are in memory.

Importing it costs next to nothing: what a name stands for is imported when the name is first used.
"""

from typing import TYPE_CHECKING, Any

from compressor import __version__

if TYPE_CHECKING:
    from compressor.recipe.recipe import Recipe
    from tenmeg.doors import compress, export, finetune, load, plan, verify

__all__ = ["Recipe", "__version__", "compress", "export", "finetune", "load", "plan", "verify"]


def __getattr__(name: str) -> Any:  # Any: a function or a class
    if name == "Recipe":
        from compressor.recipe.recipe import Recipe

        return Recipe
    if name in __all__:
        from tenmeg import doors

        return getattr(doors, name)
    from compressor.refused import did_you_mean

    what = f"module 'tenmeg' has no attribute {name!r}."
    raise AttributeError(what + did_you_mean(name, __all__), name=name, obj=None)  # with obj Python adds its own hint


def __dir__() -> list[str]:
    return sorted(__all__)
