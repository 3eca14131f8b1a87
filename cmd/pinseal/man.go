package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"pinseal/internal/atomicfile"

	"github.com/alecthomas/kong"
)

// manCmd writes the manual for the packages: one page for the program and one for each command,
// from the definitions that --help shows.
type manCmd struct {
	Folder string `arg:"" help:"Folder for the pages." type:"existingdir"`
}

// Run writes pinseal.1, pinseal-init.1 and so on.
func (c *manCmd) Run(ctx *kong.Context) error {
	date := buildTime().Format("2006-01-02")
	pages := map[string]*manPage{"pinseal": programPage(ctx.Model.Node, date)}
	for _, command := range visible(ctx.Model.Children) {
		pages["pinseal-"+command.Name] = commandPage(command, date)
	}
	for title, page := range pages {
		if err := atomicfile.Write(filepath.Join(c.Folder, title+".1"), []byte(page.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manPage is a page in the language of man(7).
type manPage struct{ strings.Builder }

func newManPage(title, date, purpose string) *manPage {
	p := &manPage{}
	p.line(`.TH "%s" "1" "%s" "pinseal" "User Commands"`, strings.ToUpper(title), date)
	p.section("NAME")
	p.line(`%s \- %s`, title, roff(purpose))
	return p
}

func programPage(root *kong.Node, date string) *manPage {
	p := newManPage("pinseal", date, "act on MQTT messages only when they are genuine")
	p.section("SYNOPSIS")
	p.line(`.B pinseal`)
	p.line(`.I command`)
	p.line(`.RI [ "flags and arguments" ]`)
	p.section("COMMANDS")
	for _, command := range visible(root.Children) {
		p.line(".TP\n.BR pinseal\\-%s (1)\n%s", roff(command.Name), roff(command.Help))
	}
	p.section("EXIT STATUS")
	for _, status := range []struct {
		code    int
		meaning string
	}{
		{exitDone, "Done."},
		{exitFailed, "Failed, or rejected by the node."},
		{exitUsage, "The command line is wrong."},
		{exitNoAnswer, "No answer in time."},
		{exitInterrupted, "Interrupted before it was done."},
	} {
		p.line(".TP\n%d\n%s", status.code, status.meaning)
	}
	p.files()
	p.section("SEE ALSO")
	p.line(`.BR pinseal.toml (5)`)
	return p
}

func (p *manPage) files() {
	l := layoutUnder("")
	p.section("FILES")
	for _, file := range []struct{ path, meaning string }{
		{l.config, "The configuration, see pinseal.toml(5)."},
		{l.signers, "Public signing keys that the node trusts."},
		{l.recipients(), "Public keys that messages are encrypted to."},
		{l.state, "The authority, certificates, private keys, bundles of clients, and what was accepted before."},
		{l.run, "The control socket and the levels of simulated lines."},
	} {
		p.line(".TP\n.I %s\n%s", roff(file.path), roff(file.meaning))
	}
}

func commandPage(command *kong.Node, date string) *manPage {
	p := newManPage("pinseal-"+command.Name, date, asPurpose(command.Help))
	leaves := []*kong.Node{command}
	if len(command.Children) > 0 {
		leaves = visible(command.Children)
	}
	p.section("SYNOPSIS")
	for i, leaf := range leaves {
		if i > 0 {
			p.line(".br")
		}
		p.line(`.B pinseal %s`, roff(leaf.Path()))
		p.line(`[flags]%s`, roff(arguments(leaf)))
	}
	p.section("DESCRIPTION")
	p.line("%s", roff(command.Help))
	for _, leaf := range leaves {
		if leaf != command {
			p.section(strings.ToUpper(leaf.Name))
			p.line("%s", roff(leaf.Help))
		}
		p.values(leaf)
	}
	p.section("SEE ALSO")
	p.line(`.BR pinseal (1)`)
	return p
}

func arguments(leaf *kong.Node) string {
	var text strings.Builder
	for _, argument := range leaf.Positional {
		text.WriteString(" " + argument.Summary())
	}
	return text.String()
}

// values lists the arguments and flags of one command.
func (p *manPage) values(leaf *kong.Node) {
	for _, argument := range leaf.Positional {
		p.line(".TP\n.I %s\n%s", roff(argument.Name), roff(argument.Help))
	}
	for _, flag := range slices.Concat(leaf.AllFlags(true)...) {
		text := flag.Help
		if flag.HasDefault {
			text += " Default: " + flag.Default + "."
		}
		if len(flag.Envs) > 0 {
			text += " Also the environment's " + strings.Join(flag.Envs, ", ") + "."
		}
		p.line(".TP\n.B %s\n%s", roff(flag.String()), roff(text))
	}
}

func (p *manPage) section(title string) { p.line(`.SH "%s"`, title) }

func (p *manPage) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p, format+"\n", args...) // a strings.Builder takes everything
}

// roff keeps what man(7) would take for markup.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `…`, `...`, `’`, `\(cq`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}

// asPurpose makes a help line one of the NAME section, which begins small and has no full stop.
func asPurpose(help string) string {
	help = strings.TrimSuffix(help, ".")
	return strings.ToLower(help[:1]) + help[1:]
}

func visible(nodes []*kong.Node) []*kong.Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *kong.Node) bool { return n.Hidden })
}
