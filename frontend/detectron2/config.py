"""detectron2's YAML configs: `_BASE_` chains, defaults, and values as yacs reads them."""

from __future__ import annotations

import ast
import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from .defaults import DEFAULTS
from .safe_yaml import load_yaml

_BASE_KEY = "_BASE_"
_LATEST_VERSION = DEFAULTS["VERSION"]
# detectron2 takes a config without VERSION for version 1 when it has one of these keys, which version 2
# renamed.
_VERSION_1_KEYS = (("MODEL", "WEIGHT"), ("TEST", "AUG_ON"))


class _Dumper(yaml.SafeDumper):
    """Writes a list that stands in two places twice, instead of a reference to the first."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class MissingKeyError(InputError, AttributeError, KeyError):
    """A config has no such key; an AttributeError and a KeyError too, so that `hasattr` and the like work."""

    def __str__(self) -> str:
        return str(self.args[0])


class Config(dict[str, Any]):
    """A config or a section of one: a dict whose keys are attributes too, `cfg.MODEL.RPN.NMS_THRESH`.

    A key that is missing raises `MissingKeyError`, which names the key in full and the file the config is
    from.
    """

    _path: str
    _source: str

    def __init__(
        self, values: Mapping[str, Any] | None = None, *, path: str = "", source: str = "the config"
    ) -> None:
        """
        Args:
            values: keys and values; mappings become sections.
            path: the name of this section, "MODEL.RPN"; empty for a whole config.
            source: what the config was read from, for messages.
        """
        super().__init__()
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_source", source)
        for key, value in (values or {}).items():
            self[key] = value

    @property
    def source(self) -> str:
        """What the config was read from, for messages."""
        return self._source

    def full_key(self, key: str) -> str:
        """A key of this section, named from the top: "NMS_THRESH" -> "MODEL.RPN.NMS_THRESH"."""
        return f"{self._path}.{key}" if self._path else str(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            value = Config(value, path=self.full_key(key), source=self._source)
        super().__setitem__(key, value)

    def __missing__(self, key: str) -> Any:
        raise MissingKeyError(f"{self._source} has no key {self.full_key(key)}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return Config(copy.deepcopy(dict(self), memo), path=self._path, source=self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.to_dict(), self._path, self._source)

    def clone(self) -> Config:
        """A copy that shares nothing with this one."""
        return copy.deepcopy(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts."""
        return {key: value.to_dict() if isinstance(value, Config) else value for key, value in self.items()}

    def dump(self) -> str:
        """The config as YAML that detectron2 and `load_config` read."""
        return yaml.dump(self.to_dict(), Dumper=_Dumper)

    def merge(self, values: Mapping[str, Any]) -> None:
        """Overwrite keys of this config, section by section, as yacs does; new keys are added.

        A string that reads as a Python literal becomes it ("1e-5", "(640, 800)"). A value must be of its
        key's type; lists and tuples count as one type, an int will do for a float, and None goes with every
        type.

        Raises:
            InputError: a value of the wrong type; it names the key and the file.
        """
        for key, value in values.items():
            new = _decode(value)
            if not isinstance(key, str):
                raise InputError(f"{self._source}: the key {self.full_key(key)} is not a string")
            if isinstance(new, Mapping) and isinstance(self.get(key), Config):
                self[key].merge(new)
            elif isinstance(new, Mapping) and key not in self:
                self[key] = Config(path=self.full_key(key), source=self._source)
                self[key].merge(new)
            elif key in self:
                self[key] = self._coerce(key, new, self[key])
            else:
                self[key] = copy.deepcopy(new)

    def merge_from_list(self, options: Sequence[Any]) -> None:
        """Overwrite keys given as a flat list, ["MODEL.RPN.NMS_THRESH", 0.6, ...], as on a command line.

        Raises:
            InputError: an odd number of entries, a key that no config has, or a value of the wrong type.
        """
        if len(options) % 2:
            raise InputError(f"config options come in pairs of key and value; got {len(options)} entries")
        for name, value in zip(options[::2], options[1::2], strict=True):
            *sections, key = str(name).split(".")
            node: Any = self
            for section in sections:
                node = node[section]
                if not isinstance(node, Config):
                    raise InputError(f"{self._source} has no key {name}: {section} is not a section")
            node.merge({key: value} if key in node else {key: node[key]})

    def _coerce(self, key: str, new: Any, old: Any) -> Any:
        new = copy.deepcopy(new)
        if new is None or old is None or type(new) is type(old):
            return new
        if isinstance(old, list | tuple) and isinstance(new, list | tuple):
            return type(old)(new)
        if type(old) is float and type(new) is int:
            return float(new)
        like = "" if isinstance(old, Config) else f" (like {old!r})"
        raise InputError(
            f"{self._source}: {self.full_key(key)} must be of type {_type_name(old)}{like}, "
            f"not {_type_name(new)}: {_plain(new)!r}"
        )


def load_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> Config:
    """Read a detectron2 config and complete it with detectron2's defaults.

    Args:
        config: the path of a YAML file, or a mapping such as detectron2's own CfgNode. `_BASE_` is resolved
            relative to the file it stands in. Keys that detectron2 does not define are kept.

    Returns:
        The whole config. No code is run in reading it.

    Raises:
        InputError: no such file, not YAML, a YAML tag that would run code, a `_BASE_` that is missing,
            circular, a list or a URL, a value of the wrong type, or a config of version 1.
    """
    if isinstance(config, Mapping):
        source = getattr(config, "source", None)
        source = source if isinstance(source, str) else "the config"
        values = {key: value for key, value in config.items() if key != _BASE_KEY}
        if _BASE_KEY in config:
            values = _inherit(values, config[_BASE_KEY], file=None, chain=())
    else:
        path = Path(config)
        if path.suffix == ".py":
            raise InputError(f"{path} is a LazyConfig, which is Python code; only YAML configs are read")
        source = str(path)
        values = _load_with_base(path, chain=())
    _check_version(values, source)
    loaded = Config(copy.deepcopy(DEFAULTS), source=source)
    try:
        loaded.merge(values)
    except RecursionError as error:
        raise InputError(f"{source}: a section contains itself") from error
    return loaded


def _load_with_base(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in chain:
        cycle = " -> ".join(str(file) for file in (*chain[chain.index(resolved) :], resolved))
        raise InputError(f"the configs are each other's {_BASE_KEY}: {cycle}")
    values = load_yaml(path)
    if _BASE_KEY not in values:
        return values
    return _inherit(values, values.pop(_BASE_KEY), file=path, chain=(*chain, resolved))


def _inherit(values: dict[str, Any], base: Any, file: Path | None, chain: tuple[Path, ...]) -> dict[str, Any]:
    where = str(file) if file else "the config"
    if not isinstance(base, str):
        raise InputError(f"{where}: {_BASE_KEY} must be one path, not a {type(base).__name__}: {base!r}")
    if "://" in base:
        raise InputError(
            f"{where}: {_BASE_KEY} is {base}; download it and give its path, nothing is fetched here"
        )
    path = Path(base).expanduser()
    if not path.is_absolute():
        path = (file.parent if file else Path()) / path
    if not path.is_file():
        raise InputError(f"{where}: its {_BASE_KEY} {base} does not exist (looked for {path})")
    inherited = _load_with_base(path, chain)
    _overlay(inherited, values, where, "")
    return inherited


def _overlay(base: dict[str, Any], values: Mapping[str, Any], where: str, path: str) -> None:
    """Put `values` over `base`, in place; what stands in both is a section in both, or a value in both."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key in base:
            if not isinstance(base[key], dict):
                raise InputError(f"{where}: {path}{key} is a section, but a plain value in its {_BASE_KEY}")
            _overlay(base[key], value, where, f"{path}{key}.")
        else:
            base[key] = value


def _check_version(values: Mapping[str, Any], source: str) -> None:
    version = values.get("VERSION")
    if version is None:
        old = any(
            isinstance(values.get(section), Mapping) and key in values[section]
            for section, key in _VERSION_1_KEYS
        )
        version = 1 if old else _LATEST_VERSION
    if version == _LATEST_VERSION:
        return
    if version == 1:
        raise InputError(
            f"{source} is a detectron2 config of version 1; convert it with detectron2's upgrade_config"
        )
    raise InputError(
        f"{source}: VERSION {version!r} is not known; configs of version {_LATEST_VERSION} are read"
    )


def _decode(value: Any) -> Any:
    """A string that is a Python literal becomes its value, as in yacs: YAML has no tuples, and no 1e-5."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Config) else value


def _type_name(value: Any) -> str:
    return "section" if isinstance(value, Mapping) else type(value).__name__


def _rebuild(values: dict[str, Any], path: str, source: str) -> Config:
    return Config(values, path=path, source=source)
