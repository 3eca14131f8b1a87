#compdef pinseal
# zsh completion for pinseal: the program itself says what could come next.
_pinseal() {
	local line
	local -a candidates
	compset -P '--*='
	for line in "${(@f)$(${words[1]} complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		case $line in
		:files) _files ;;
		:folders) _files -/ ;;
		*$'\t'*) candidates+=("${line%%$'\t'*}:${line#*$'\t'}") ;;
		?*) candidates+=("$line") ;;
		esac
	done
	((${#candidates})) && _describe pinseal candidates
}
if [[ ${funcstack[1]} == _pinseal ]]; then
	_pinseal "$@"
else
	compdef _pinseal pinseal
fi
