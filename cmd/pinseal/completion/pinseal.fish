# fish completion for pinseal: the program itself says what could come next.
function __pinseal_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l prefix (string match -r -- '^--[^=]*=' $words[-1])
	for line in ($words[1] complete -- $words[2..-1] 2>/dev/null)
		switch $line
			case ':files'
				__fish_complete_path (string replace -- "$prefix" '' $words[-1])
			case ':folders'
				__fish_complete_directories (string replace -- "$prefix" '' $words[-1])
			case '*'
				echo $prefix$line
		end
	end
end
complete -c pinseal -f -a '(__pinseal_complete)'
