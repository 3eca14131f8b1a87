# pinseal.toml(5) from docs/configuration.md: headings, paragraphs, and tables whose rows are keys.
function roff(text,    parts, n, i, out) {
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	gsub(/…/, "...", text)
	n = split(text, parts, "`")
	for (i = 1; i <= n; i++) out = out (i % 2 ? parts[i] : "\\fB" parts[i] "\\fR")
	if (out ~ /^[.']/) out = "\\&" out
	return out
}
function cell(i) { gsub(/^ +| +$/, "", cells[i]); return roff(cells[i]) }
BEGIN {
	print ".TH \"PINSEAL.TOML\" \"5\" \"" date "\" \"pinseal\" \"File Formats\""
	print ".SH \"NAME\"\npinseal.toml \\- configuration of a pinseal node"
	print ".SH \"DESCRIPTION\""
}
/^# / { next }
/^## / { sub(/^## /, ""); gsub(/`/, ""); print ".SH \"" roff(toupper(substr($0, 1, 1)) substr($0, 2)) "\""; next }
/^\|/ {
	n = split($0, cells, "|")
	if ($0 ~ /^\|[-| ]+\|$/ || $0 ~ /^\| key /) next
	print ".TP\n" cell(2)
	print cell(4) (cell(3) == "none" ? "" : cell(3) == "required" ? " Required." : " Default: " cell(3) ".")
	next
}
/^$/ { print ".PP"; next }
{ print roff($0) }
END { print ".SH \"SEE ALSO\"\n.BR pinseal (1)" }
