package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pinseal/pki"
)

const appended = 6 // entries, of which some cross the border of a page

// liveJournal is an authority's journal. An entry that was not written is written again.
func liveJournal(folder string, tell func(string, ...any)) error {
	j := pki.OpenJournal(filepath.Join(folder, "journal"))
	history, err := pki.ReadJournal(filepath.Join(folder, "journal"))
	if err != nil {
		return err
	}
	for n := range appended {
		name := fmt.Sprint(len(history.Entries) + n)
		if err := until("the journal", func() error {
			return j.Append(pki.Entry{Time: time.Unix(0, 0).UTC(), Event: "tried", Name: name, By: strings.Repeat("x", 1500)})
		}); err != nil {
			return err
		}
		tell("%s", name)
	}
	return nil
}

// judgeJournal: it is whole, nothing is gone that was appended, and it goes on.
func judgeJournal(folder string, marks []string) error {
	path := filepath.Join(folder, "journal")
	if err := pki.OpenJournal(path).Append(pki.Entry{Time: time.Unix(0, 0).UTC(), Event: "tried", Name: "after"}); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	history, err := pki.ReadJournal(path)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	for _, name := range append(marks, "after") {
		if !slices.ContainsFunc(history.Entries, func(e pki.Entry) bool { return e.Name == name }) {
			return fmt.Errorf("entry %s is gone", name)
		}
	}
	return nil
}
