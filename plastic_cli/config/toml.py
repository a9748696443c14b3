"""Reading and writing configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plastic_cli.config.model import Config
from plastic_cli.errors import UserError


def decode_toml(content: bytes) -> str:
    """Return the text of a TOML file, without the byte order mark of some editors; raises UnicodeDecodeError."""
    return content.decode("utf-8-sig")


def read_toml(path: Path) -> dict[str, Any]:
    """Read the keys of a configuration file; hyphens count as underscores. Raises UserError if it cannot be read."""
    import tomllib

    try:
        values = tomllib.loads(decode_toml(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {path}.") from None
    except RecursionError:
        raise UserError(f"cannot read the configuration file {path}: it is nested too deeply.") from None
    except OSError as error:
        raise UserError(f"cannot read the configuration file {path}: {error.strerror or error}.") from None
    except ValueError as error:  # not UTF-8, not TOML, or an integer that is too long for Python
        raise UserError(f"cannot read the configuration file {path}: {error}.") from None
    named = {key.replace("-", "_"): value for key, value in values.items()}
    if len(named) < len(values):
        twice = next(key for key in values if "-" in key and key.replace("-", "_") in values)
        raise UserError(f"{path}: '{twice}' and '{twice.replace('-', '_')}' are the same key. Keep one of them.")
    return named


def to_toml(config: Config, heading: str = "") -> str:
    """Write a configuration as TOML for `--config`; a field without a value is written as a comment."""
    import tomli_w

    lines = [f"# {heading}"] if heading else []
    for name, value in config.model_dump(mode="json").items():
        help_text = type(config).model_fields[name].description or ""
        lines.append(f"# {help_text}")
        # TOML has no null: the comment shows the key, and the default applies.
        lines.append(f"# {name} =" if value is None else tomli_w.dumps({name: value}).rstrip())
    return "\n".join(lines) + "\n"
