"""The names of algorithms and datasets, and the modules to import them from on demand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import Any

from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.options.declaring import Option, name_of
from pytest_pilotscope.options.extras import install_line
from pytest_pilotscope.options.settings import OPTIONS

_NAME = re.compile(r"\w[\w.+-]{0,59}", re.ASCII)
"""A name is part of the names of files, experiments, tests and options."""

_RESERVED = ("baseline-again", "compare")
"""Names that a record has for the second side of an A/A run, and for a run of several sides."""

Target = str | Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One registered name. `target` is `"package.module:Class"`, imported on demand, or the class itself.

    `needs` names the libraries that it imports later, when it learns or loads a model.
    """

    kind: str
    name: str
    target: Target
    origin: str
    needs: tuple[str, ...] = ()

    def resolve(self) -> Callable[..., Any]:
        """Import the target. Raise `UsageError` if a library that it needs is missing, and, with the origin, if the import fails."""
        for library in self.needs:
            if find_spec(library) is None:
                raise UsageError(self._missing(library))
        if not isinstance(self.target, str):
            return self.target
        module_name, _, attribute = self.target.partition(":")
        try:
            resolved: Callable[..., Any] = getattr(import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and install_line(missing):
                raise UsageError(self._missing(missing)) from error
            raise UsageError(
                f"{self.kind} {self.name!r} (registered by {self.origin}) cannot be imported from {self.target!r}: {error}"
            ) from error
        return resolved

    def _missing(self, library: str) -> str:
        install = install_line(library) or f"pip install {library}"
        return f"{self.kind} {self.name!r} needs {library}, which is not installed; install it with: {install}"


@dataclass(slots=True)
class Registry:
    """The names that `pytest_pilotscope_register` adds: one registry per pytest session, or one of `builtin_registry` without pytest."""

    _algorithms: dict[str, Entry] = field(default_factory=dict)
    _datasets: dict[str, Entry] = field(default_factory=dict)
    _options: dict[str, dict[str, Option]] = field(default_factory=dict)

    def add_algorithm(self, name: str, target: Target, *, origin: str, needs: tuple[str, ...] = ()) -> None:
        """
        Register an algorithm: `target` is `"module:Class"` or a class; errors show `origin`. A name can be registered once.

        A library that the module imports only within functions, such as torch, is checked before anything starts if `needs` names it.
        """
        self._add(self._algorithms, Entry(kind="algorithm", name=name, target=target, origin=origin, needs=needs))

    def add_dataset(self, name: str, target: Target, *, origin: str) -> None:
        """Register a dataset: `target` makes a `datasets.base.Dataset` when called with `name=`, `scale=`, `seed=` and `data_dir=`."""
        self._add(self._datasets, Entry(kind="dataset", name=name, target=target, origin=origin))

    def add_option(
        self,
        algorithm: str,
        name: str,
        *,
        default: Any,
        help: str,
        parse: Callable[[str], Any] | None = None,
        choices: tuple[str, ...] = (),
        metavar: str | None = None,
    ) -> None:
        """
        Declare an option of an algorithm, which reads the value in `training.options[name]`.

        The option is `--ALGORITHM-NAME`, its ini key `pilotscope_ALGORITHM_NAME`; `Option` explains the other arguments. Raise `UsageError`
        for a name that another option has or that is no Python name, and for a default that the option itself would reject.
        """
        if not name.isidentifier():
            raise UsageError(f"option {name!r} of algorithm {algorithm!r} must be a Python name such as batch_size")
        declared = Option(
            name=name_of(name, default, prefix=f"{algorithm}-".replace("_", "-")),
            key=name,
            default=default,
            help=help,
            group=algorithm,
            parse=parse,
            choices=choices,
            metavar=metavar,
        )
        declared.checked(default, f"default of option {name!r} of algorithm {algorithm!r}")
        others = chain(OPTIONS, *(options.values() for options in self._options.values()))
        if any(other.dest == declared.dest and other != declared for other in others):
            raise UsageError(f"option {name!r} of algorithm {algorithm!r}: there is another option --{declared.name}; rename one of them")
        self._options.setdefault(algorithm, {})[name] = declared

    def options(self, algorithm: str, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """
        Return the values of an algorithm's options: the `chosen` ones (by algorithm, as in `Settings.options`), else the defaults.

        Raise `UnknownName` for an undeclared option, and `UsageError` for a value that the command line would reject.
        """
        declared = self._options.get(algorithm, {})
        values = {name: option.default for name, option in declared.items()}
        for name, value in chosen.get(algorithm, {}).items():
            if name not in declared:
                raise UnknownName(f"option of {algorithm}", name, declared)
            values[name] = declared[name].checked(value, name)
        return values

    @property
    def declared(self) -> Mapping[str, Mapping[str, Option]]:
        """The options of every algorithm, by algorithm and name."""
        return self._options

    def algorithm(self, name: str) -> Entry:
        """Return the entry of an algorithm; `UnknownName` lists the near matches and all names."""
        return self._find("algorithm", self._algorithms, name)

    def parts(self, name: str) -> tuple[Entry, ...]:
        """
        Return the algorithms that a name joins with `+`, in the order in which they are trained; one for a registered name.

        All but the last prepare the database. Raise `UnknownName` for an unknown part, and `UsageError` for parts that do not go together.
        """
        if name in self._algorithms or "+" not in name:
            return (self.algorithm(name),)
        parts = tuple(map(self.algorithm, name.split("+")))
        prepares = [hasattr(part.resolve(), "prepare") for part in parts]
        if len({part.name for part in parts}) < len(parts):
            raise UsageError(f"--algo {name} names an algorithm twice; leave one of them out")
        if not all(prepares[:-1]):
            first = parts[prepares.index(False)].name
            raise UsageError(
                f"--algo {name}: {first} changes nothing in the database that the next one could build on; put what prepares a database "
                "(such as index, knob) first, and at most one that decides for each query last"
            )
        if not (prepares[-1] or any(hasattr(parts[-1].resolve(), method) for method in ("steer", "decide"))):
            raise UsageError(f"--algo {name}: {parts[-1].name} neither decides for each query nor prepares a database; leave it out")
        return parts

    def dataset(self, name: str) -> Entry:
        """Return the entry of a dataset; `UnknownName` lists the near matches and all names."""
        return self._find("dataset", self._datasets, name)

    @property
    def algorithms(self) -> tuple[Entry, ...]:
        """Every registered algorithm, in order of registration."""
        return tuple(self._algorithms.values())

    @property
    def datasets(self) -> tuple[Entry, ...]:
        """Every registered dataset, in order of registration."""
        return tuple(self._datasets.values())

    @staticmethod
    def _find(kind: str, entries: dict[str, Entry], name: str) -> Entry:
        try:
            return entries[name]
        except KeyError:
            raise UnknownName(kind, name, entries) from None

    @staticmethod
    def _add(entries: dict[str, Entry], entry: Entry) -> None:
        if not _NAME.fullmatch(entry.name):
            raise UsageError(
                f"{entry.kind} {entry.name!r} (registered by {entry.origin}): a name has 1 to 60 letters (a-z), "
                "digits, _, ., + and -, and does not begin with the last three; rename it"
            )
        if entry.kind == "algorithm" and entry.name in _RESERVED:
            raise UsageError(f"algorithm {entry.name!r} (registered by {entry.origin}): records use this name themselves; rename it")
        taken = entries.get(entry.name)
        if taken is not None and taken.target != entry.target:
            raise UsageError(
                f"{entry.kind} {entry.name!r} is registered twice: by {taken.origin} and by {entry.origin}; rename one of them"
            )
        entries[entry.name] = entry
