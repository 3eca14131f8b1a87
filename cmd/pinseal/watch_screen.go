package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"pinseal/signing"

	"golang.org/x/term"
)

// Sequences of ECMA-48 and xterm that every terminal of the last thirty years knows.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
	bold        = "\x1b[1m"
	normal      = "\x1b[m"
)

// window is a terminal that shows a board. Close gives it back as it was.
type window struct {
	in, out *os.File
	before  *term.State // of in; nil: it is no terminal
}

// openWindow takes the terminal, if standard output is one. quit is called when its user wants to end.
func openWindow(std streams, quit func()) (*window, error) {
	out, ok := terminal(std.out)
	if !ok || os.Getenv("TERM") == "dumb" {
		return nil, nil //nolint:nilnil // none is a good answer
	}
	w := &window{out: out}
	if in, ok := terminal(std.in); ok {
		var err error
		if w.before, err = term.MakeRaw(int(in.Fd())); err != nil {
			return nil, fmt.Errorf("setting the terminal up: %w", err)
		}
		w.in = in
		go w.readKeys(quit) // ends with the process: a read of a terminal cannot be called off
	}
	if _, err := out.WriteString(enterScreen); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the terminal up: %w", err), w.Close())
	}
	return w, nil
}

// readKeys waits for q, Ctrl-C or Ctrl-D, which a raw terminal makes no signals of.
func (w *window) readKeys(quit func()) {
	key := make([]byte, 1)
	for {
		if n, err := w.in.Read(key); err != nil || n == 1 && strings.ContainsRune("q\x03\x04", rune(key[0])) {
			quit()
			return
		}
	}
}

// Close restores the terminal.
func (w *window) Close() error {
	_, err := w.out.WriteString(leaveScreen)
	if w.before != nil {
		err = errors.Join(err, term.Restore(int(w.in.Fd()), w.before))
	}
	return err
}

// draw shows the board in the terminal's present size.
func (w *window) draw(b *board, now time.Time) error {
	width, height, err := term.GetSize(int(w.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	frame := home + strings.Join(b.render(width, height, now), clearLine+"\r\n") + clearLine + clearBelow
	_, err = w.out.WriteString(frame)
	return err
}

// render words the board in at most height lines of at most width characters each. Verdicts get what is left.
func (b *board) render(width, height int, now time.Time) []string {
	lines := []string{cut(b.headline(now), width)}
	add := func(title string, rows []string) {
		if len(rows) > 0 {
			lines = append(lines, "", bold+cut(title, width)+normal)
		}
		for _, row := range rows {
			lines = append(lines, cut(row, width))
		}
	}
	if b.notice != "" {
		lines = append(lines, cut(b.notice, width))
	}
	add("OUTPUTS", rows(b.outputs, now))
	add("INPUTS", rows(b.inputs, now))
	add("MEASURES", rows(b.measures, now))
	if room := height - len(lines) - 2; room > 0 {
		add("VERDICTS", b.latest(room))
	}
	if len(lines) > height {
		lines = append(lines[:height-1], cut(fmt.Sprintf("… %d more lines: a higher window shows them", len(lines)-height+1), width))
	}
	return lines
}

func (b *board) headline(now time.Time) string {
	words := []string{b.node, orDefault(b.availability, "not heard of yet")}
	if !b.connected {
		words[1] = "connection lost"
	}
	words = append(words, now.Format(time.TimeOnly), fmt.Sprintf("%d rejected", b.rejected))
	if b.left > 0 {
		words = append(words, fmt.Sprintf("only %d topics shown", maxWatched))
	}
	if len(b.hidden) > 0 {
		words = append(words, "not allowed to see "+strings.Join(b.hidden, " "))
	}
	return strings.Join(words, "  ")
}

// rows words readings by name: name, value, age.
func rows(readings map[string]*reading, now time.Time) []string {
	names := slices.Sorted(maps.Keys(readings))
	widest := 0
	for _, name := range names {
		widest = max(widest, utf8.RuneCountInString(name))
	}
	out := make([]string, len(names))
	for i, name := range names {
		r := readings[name]
		out[i] = fmt.Sprintf("  %-*s  %8s  %s", min(widest, 40), name, age(now.Sub(r.at)), r.text)
		if r.detail != "" {
			out[i] += "  " + r.detail
		}
	}
	return out
}

// latest words the last verdicts, the newest first.
func (b *board) latest(room int) []string {
	var out []string
	for _, v := range slices.Backward(b.verdicts) {
		if len(out) == room {
			break
		}
		mark := "  "
		if v.Reason != signing.ReasonApplied {
			mark = "! "
		}
		out = append(out, mark+v.Time.Local().Format(time.TimeOnly)+"  "+v.String())
	}
	return out
}

// age is how long ago something was, in few characters.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
}

// cut keeps a line within the window.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	runes := []rune(line)
	return string(runes[:max(0, width-1)]) + "…"
}
