# Debian's form of CHANGELOG.md: one entry, for the version that is packaged, with the newest section's points.
/^## / { section++ }
section == 1 && /^- / { sub(/^- /, "  * "); points = points $0 "\n"; next }
section == 1 && /^  [^ ]/ { points = points "  " $0 "\n" }
END {
	gsub(/`/, "", points)
	printf "pinseal (%s) unstable; urgency=medium\n\n%s\n -- %s  %s\n", version, points, maintainer, date
}
