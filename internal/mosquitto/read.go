// Package mosquitto reads mosquitto's configuration (mosquitto.conf(5), version 2.0) and says what it means in terms of
// pinseal's broker, and what of it has no counterpart there.
//
// What cannot be said as strictly is left out, never widened: a listener that would let in somebody whom mosquitto
// refuses is not translated.
package mosquitto

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Line is an option where it stands.
type Line struct {
	File   string
	Number int
	Option string
	Value  string // the rest of the line
}

// At is the place of a line as compilers write it.
func (l Line) At() string { return fmt.Sprintf("%s:%d", l.File, l.Number) }

// maxDepth bounds folders that include each other.
const maxDepth = 10

// Read reads a configuration with all that it includes, in mosquitto's order.
func Read(path string) ([]Line, error) { return read(path, maxDepth) }

func read(path string, depth int) ([]Line, error) {
	if depth == 0 {
		return nil, errors.New("include_dir leads in circles")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("%s is no text", path)
	}
	var lines []Line
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		text := strings.TrimRight(string(raw), " \t\r\n")
		if text == "" || text[0] == '#' {
			continue
		}
		option, value, _ := strings.Cut(strings.TrimLeft(text, " "), " ")
		l := Line{path, number, option, strings.TrimLeft(value, " ")}
		if option != "include_dir" {
			lines = append(lines, l)
			continue
		}
		included, err := readFolder(l.Value, depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.At(), err)
		}
		lines = append(lines, included...)
	}
	return lines, nil
}

// readFolder reads every *.conf of a folder, sorted as mosquitto does: capital letters before small ones.
func readFolder(folder string, depth int) ([]Line, error) {
	files, err := filepath.Glob(filepath.Join(escaped(folder), "*.conf"))
	if err != nil {
		return nil, err
	}
	if _, err := os.ReadDir(folder); err != nil {
		return nil, err
	}
	slices.Sort(files)
	var lines []Line
	for _, file := range files {
		more, err := read(file, depth-1)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

// escaped is a path that a pattern takes as it is.
func escaped(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
