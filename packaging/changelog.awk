# Debian's form of CHANGELOG.md: one entry, for the version that is packaged, with the newest section's points.
function flush(    words, n, i, line) {
	n = split(point, words, " ")
	line = "  *"
	for (i = 1; i <= n; i++) {
		if (length(line) + 1 + length(words[i]) > 78) {
			points = points line "\n"
			line = "   "
		}
		line = line " " words[i]
	}
	if (n) points = points line "\n"
	point = ""
}
/^## / { flush(); section++; next }
section != 1 { next }
/^- / { flush(); sub(/^- /, "") }
{ gsub(/`/, ""); point = point " " $0 }
END {
	flush()
	printf "pinseal (%s) unstable; urgency=medium\n\n%s\n -- %s  %s\n", version, points, maintainer, date
}
