package gpio

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// headerLabels are the labels of the chips behind the 40-pin header, newest board first. On each of them the offset of
// a header line is its Broadcom number.
func headerLabels() []string {
	return []string{
		"pinctrl-rp1",     // Pi 5, 500, CM5
		"pinctrl-bcm2711", // Pi 4, 400, CM4
		"pinctrl-bcm2835", // all before, Zero 2 included
	}
}

// lastHeaderNumber is the highest Broadcom number on the 40-pin header.
const lastHeaderNumber = 27

// FindLine finds a line by its name ("GPIO17"; upper or lower case where that is unambiguous), by its Broadcom number
// ("17", "BCM17") or by its offset on the chip ("line:17"). On a Raspberry Pi's header chip the Broadcom number also
// finds a line that is named after its other function or not at all. The error is ErrLineNotFound and suggests names.
func FindLine(lines []LineInfo, name string) (LineInfo, error) {
	for _, match := range matchers(name) {
		found := slices.DeleteFunc(slices.Clone(lines), func(l LineInfo) bool { return !match(l) })
		if len(found) > 0 && (len(found) == 1 || found[0].Name == name) {
			return found[0], nil
		}
		if len(found) > 1 {
			return LineInfo{}, fmt.Errorf("%w: %q could be %s or %s; write it exactly", ErrLineNotFound, name, describe(found[0]), describe(found[1]))
		}
	}
	return LineInfo{}, notFound(lines, name)
}

// matchers returns the ways to understand a name, the surest first.
func matchers(name string) []func(LineInfo) bool {
	if rest, ok := strings.CutPrefix(name, "line:"); ok {
		offset, err := strconv.Atoi(rest)
		return []func(LineInfo) bool{func(l LineInfo) bool { return err == nil && l.Offset == offset }}
	}
	if name == "" {
		return nil // a line without a name is not the line called ""
	}
	ways := []func(LineInfo) bool{
		func(l LineInfo) bool { return l.Name == name },
		func(l LineInfo) bool { return strings.EqualFold(l.Name, name) },
	}
	if number, ok := broadcomNumber(name); ok {
		ways = append(ways,
			func(l LineInfo) bool { return l.Name == "GPIO"+strconv.Itoa(number) },
			func(l LineInfo) bool {
				return l.Offset == number && number <= lastHeaderNumber && slices.Contains(headerLabels(), l.Chip)
			})
	}
	return ways
}

// broadcomNumber reads "17", "BCM17" and "GPIO17".
func broadcomNumber(name string) (int, bool) {
	digits := strings.ToUpper(name)
	for _, prefix := range []string{"BCM", "GPIO"} {
		if rest, ok := strings.CutPrefix(digits, prefix); ok {
			digits = rest
			break
		}
	}
	number, err := strconv.ParseUint(digits, 10, 16)
	return int(number), err == nil
}

func describe(l LineInfo) string {
	if l.Name == "" {
		return fmt.Sprintf("line:%d of %s", l.Offset, l.Chip)
	}
	return fmt.Sprintf("%s of %s", l.Name, l.Chip)
}

// notFound names the chip and the lines whose names are nearest to the one asked for.
func notFound(lines []LineInfo, name string) error {
	if len(lines) == 0 {
		return fmt.Errorf("%w: %q: the chip has no lines", ErrLineNotFound, name)
	}
	var names []string
	for _, l := range lines {
		if l.Name != "" && !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: %q on %s, whose lines have no names; use line:0 to line:%d",
			ErrLineNotFound, name, lines[0].Chip, len(lines)-1)
	}
	upper := strings.ToUpper(name)
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(strings.ToUpper(a), upper), distance(strings.ToUpper(b), upper)),
			cmp.Compare(abs(len(a)-len(name)), abs(len(b)-len(name))))
	})
	return fmt.Errorf("%w: %q on %s; near it: %s", ErrLineNotFound, name, lines[0].Chip, strings.Join(names[:min(3, len(names))], ", "))
}

// distance is the number of bytes to insert, delete, replace or swap with their neighbour to get from a to b.
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			d[i][j] = min(replace, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

func abs(n int) int { return max(n, -n) }
