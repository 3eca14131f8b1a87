# fish completion for pinseal: the program itself says what could come next.
function __pinseal_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l flag (string match -r -- '^--[^=]*=' $words[-1]; or echo)
	set -l value (string replace -- "$flag" '' $words[-1])
	for line in ($words[1] complete -- $words[2..-1] 2>/dev/null)
		switch $line
			case ':files'
				string replace -r -- '^' "$flag" (__fish_complete_path $value)
			case ':folders'
				string replace -r -- '^' "$flag" (__fish_complete_directories $value)
			case '*'
				echo $flag$line
		end
	end
end
complete -c pinseal -f -a '(__pinseal_complete)'
