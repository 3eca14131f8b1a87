package main

import (
	"errors"
	"fmt"
	"strings"

	"pinseal/pki"
)

type journalCmd struct {
	Verify journalVerifyCmd `cmd:"" help:"Verify that nothing in the journal was changed or removed, and print its head."`
	List   journalListCmd   `cmd:"" help:"List what the authority issued, to whom, and who allowed it."`
}

// checkNode refuses to tell of a node that is not there as if nothing had happened on it.
func (l layout) checkNode() error {
	if !exists(l.journal()) && !exists(l.config) {
		return noConfiguration(l.config)
	}
	return nil
}

type journalVerifyCmd struct {
	dirFlag
	Head string `help:"A head printed earlier, kept elsewhere: find out whether what it stands for is still there." placeholder:"HASH"`
}

// Run verifies the chain of hashes; what was cut off its end shows only to who has kept a head.
func (c *journalVerifyCmd) Run(std streams) error {
	l := c.layout()
	if err := l.checkNode(); err != nil {
		return err
	}
	history, err := pki.ReadJournal(l.journal())
	if err != nil {
		return withHint(err, "whatever follows that line cannot be believed either; compare with a backup")
	}
	if c.Head != "" && !history.Contains(strings.ToLower(c.Head)) {
		return withHint(fmt.Errorf("the journal's %d entries do not hold %s", len(history.Entries), c.Head), "entries were removed from its end, or it is another journal")
	}
	if len(history.Entries) == 0 {
		return errors.New("the journal is empty")
	}
	fmt.Fprintf(std.out, "%d entries, nothing changed; head %s\n", len(history.Entries), history.Head)
	if history.Torn {
		fmt.Fprintln(std.out, "a power cut left a part of a line behind it, which was never acted on; the next entry takes its place")
	}
	return nil
}

type journalListCmd struct {
	dirFlag
	listFlag
}

// Run lists the entries, oldest first.
func (c *journalListCmd) Run(std streams) error {
	l := c.layout()
	if err := l.checkNode(); err != nil {
		return err
	}
	history, err := pki.ReadJournal(l.journal())
	if err != nil {
		return err
	}
	table := c.table(std.out, "TIME", "EVENT", "NAME", "KIND", "UNTIL", "BY", "SERIAL")
	for _, e := range history.Entries {
		until := ""
		if !e.NotAfter.IsZero() {
			until = e.NotAfter.Format("2006-01-02")
		}
		table.row(e.Time.Format("2006-01-02 15:04:05"), e.Event, e.Name, e.Profile, until, e.By, e.Serial)
	}
	return table.flush()
}
