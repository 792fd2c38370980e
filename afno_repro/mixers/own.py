"""Mixers of one's own: `package.module:Class`, from an installed package or a folder of PYTHONPATH."""

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from afno_repro.errors import ConfigError, Problem
from afno_repro.options import keywords, suggest

GIVEN = ("dim", "grid")  # the first arguments of every mixer
WHERE = "an own mixer is package.module:Class, from an installed package or a folder that PYTHONPATH names in full"


@cache
def own_mixer(name: str) -> type[nn.Module]:
    """The class that a dotted path names; its module is imported. Raises ConfigError where it is no mixer."""
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise _refused(f"{name!r} is no dotted path", WHERE)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        hint = WHERE if module_name.startswith(missing) else f"{module_name} imports it"
        raise _refused(f"there is no module {missing!r}", hint) from error
    except (Exception, SystemExit) as error:  # whatever the module does as it is imported
        raise _refused(f"{module_name} cannot be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        modules = [
            key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, nn.Module)
        ]
        raise _refused(f"{module_name} has no nn.Module {class_name!r}", suggest(class_name, modules, "its modules"))
    if wrong := _signature(found):
        raise _refused(f"{name}: {wrong}", f"its constructor starts ({', '.join(GIVEN)}, ...), each option has a type")
    return found


def _signature(mixer: Callable[..., Any]) -> str:
    """Why a spec cannot give a class its arguments, or nothing."""
    parameters = inspect.signature(mixer).parameters
    if tuple(parameters)[: len(GIVEN)] != GIVEN:
        return f"its first arguments are ({', '.join(tuple(parameters)[:2])}), not ({', '.join(GIVEN)})"
    try:
        hints = keywords(mixer)
    except (NameError, TypeError, AttributeError) as error:
        return f"the types of its arguments cannot be read ({error})"
    for name in (name for name in parameters if name not in GIVEN):
        if parameters[name].kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            return f"it takes {parameters[name]}, so that its options are not known"
        if name not in hints:
            return f"its option {name!r} has no type"
    return ""


def _refused(message: str, hint: str = "") -> ConfigError:
    return ConfigError(Problem(message, ("name",), hint))
