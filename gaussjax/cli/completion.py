"""`gaussjax completion`: scripts by which shells complete subcommands, options and the values that options have."""

import argparse
import shlex
from typing import NamedTuple

SHELLS = ("bash", "zsh", "fish")


class _Option(NamedTuple):
  """An option or, without names, the arguments that are not one."""

  names: tuple[str, ...]
  values: tuple[str, ...]  # all that it takes; empty where any will do
  takes: bool  # whether a value follows
  help: str


def script(top: argparse.ArgumentParser, shell: str) -> str:
  """The script of a shell for the subcommands of a parser."""
  return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](top.prog, _commands(top), _options(top))


def _commands(top: argparse.ArgumentParser) -> dict[str, tuple[str, list[_Option]]]:
  """(help, options) of each subcommand."""
  (group,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
  helps = {action.dest: action.help or "" for action in group._choices_actions}
  return {name: (helps[name], _options(parser)) for name, parser in group.choices.items()}


def _options(parser: argparse.ArgumentParser) -> list[_Option]:
  plain = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
  return [
    _Option(
      tuple(action.option_strings), tuple(map(str, action.choices or ())), action.nargs != 0, action.help or ""
    )
    for action in plain
  ]


def _names(options: list[_Option]) -> str:
  return " ".join(name for option in options for name in option.names)


def _bash(prog: str, commands: dict[str, tuple[str, list[_Option]]], top: list[_Option]) -> str:
  lines = [f"# bash completion of {prog}", f"_{prog}() {{", '  local word="${COMP_WORDS[COMP_CWORD]}" words=""']
  lines += ['  local before="${COMP_WORDS[COMP_CWORD-1]}"', "  COMPREPLY=()"]
  # bash takes --name=value for three words
  lines += ['  if [[ $before == "=" ]]; then before="${COMP_WORDS[COMP_CWORD-2]}"; fi']
  lines += ['  if [[ $word == "=" ]]; then word=""; fi', "  if ((COMP_CWORD == 1)); then"]
  lines += [f'    COMPREPLY=($(compgen -W "{" ".join(commands)} {_names(top)}" -- "$word"))', "    return", "  fi"]
  lines += ['  case "${COMP_WORDS[1]} $before" in']
  for name, (_, options) in commands.items():
    for option in options:
      if option.names and option.values:
        keys = " | ".join(f'"{name} {key}"' for key in option.names)
        lines.append(f'    {keys}) COMPREPLY=($(compgen -W "{" ".join(option.values)}" -- "$word")); return ;;')
  lines += ["  esac", '  case "${COMP_WORDS[1]}" in']
  for name, (_, options) in commands.items():
    fixed = " ".join(value for option in options if not option.names for value in option.values)
    lines.append(f'    {name}) words="{f"{fixed} {_names(options)}".strip()}" ;;')
  lines += [
    "  esac",
    '  if [[ $word == -* || $words != -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$word")); fi',
  ]
  lines += ["  # files, where the script names nothing", "}", f"complete -o default -F _{prog} {prog}", ""]
  return "\n".join(lines)


def _zsh(prog: str, commands: dict[str, tuple[str, list[_Option]]], top: list[_Option]) -> str:
  def spec(option: _Option) -> str:
    said = option.help.replace("[", "(").replace("]", ")").replace(":", " -").replace("'", "")
    value = f":value:({' '.join(option.values)})" if option.values else ":file:_files" if option.takes else ""
    if not option.names:
      return shlex.quote(f"*{value}")
    both = f"({' '.join(option.names)})"
    return " ".join(shlex.quote(f"{both}{name}[{said}]{value}") for name in option.names)

  lines = [f"#compdef {prog}", f"_{prog}() {{", "  local -a commands", "  commands=("]
  lines += [f"    {shlex.quote(f'{name}:{said}')}" for name, (said, _) in commands.items()]
  lines += ["  )", "  if ((CURRENT == 2)); then", "    _describe command commands", "    return", "  fi"]
  lines += ["  local name=$words[2]", "  shift words", "  ((CURRENT--))", "  case $name in"]
  for name, (_, options) in commands.items():
    named = [spec(option) for option in options if option.names]
    rest = [spec(option) for option in options if not option.names][:1]  # any number of them
    lines.append(f"    {name}) _arguments {' '.join([*named, *rest])} ;;")
  lines += [
    "  esac",
    "}",
    f'if [[ $funcstack[1] == _{prog} ]]; then _{prog} "$@"; else compdef _{prog} {prog}; fi',
    "",
  ]
  return "\n".join(lines)


def _fish(prog: str, commands: dict[str, tuple[str, list[_Option]]], top: list[_Option]) -> str:
  lines = [f"# fish completion of {prog}"]
  for name, (said, _) in commands.items():
    lines.append(f"complete -c {prog} -f -n __fish_use_subcommand -a {name} -d {shlex.quote(said)}")
  for name, (_, options) in commands.items():
    there = f"complete -c {prog} -n '__fish_seen_subcommand_from {name}'"
    for option in options:
      values = f" -a {shlex.quote(' '.join(option.values))}" if option.values else ""
      if option.names:
        flags = " ".join(f"-l {key[2:]}" if key.startswith("--") else f"-s {key[1:]}" for key in option.names)
        takes = f" {'-x' if option.values else '-r'}" if option.takes else ""
        lines.append(f"{there} {flags}{takes}{values} -d {shlex.quote(option.help)}")
      elif values:
        lines.append(f"{there} -f{values}")
  return "\n".join([*lines, ""])
