# Completion of `oxrelay` for bash: subcommands and peer's actions, then the options that their own --help lists, then files.
_oxrelay() {
  local word=${COMP_WORDS[COMP_CWORD]} subcommand=${COMP_WORDS[1]}
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "#SUBCOMMANDS# --help --version" -- "$word")
  elif [[ $subcommand == peer && $COMP_CWORD == 2 && $word != -* ]]; then
    local actions
    actions=$(oxrelay peer --help 2>/dev/null | grep -oE '\bpeer [a-z]+' | cut -d' ' -f2 | sort -u)
    mapfile -t COMPREPLY < <(compgen -W "$actions" -- "$word")
  elif [[ $word == -* ]]; then
    local options help=("$subcommand")
    # Each action of peer has its own options.
    [[ $subcommand == peer && $COMP_CWORD -gt 2 ]] && help+=("${COMP_WORDS[2]}")
    options=$(oxrelay "${help[@]}" --help 2>/dev/null | grep -oE '(^|[ ,])--[a-z][a-z0-9-]*' | tr -d ' ,' | sort -u)
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -o filenames -F _oxrelay oxrelay
