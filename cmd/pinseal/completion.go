package main

import (
	"embed"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" help:"The shell: bash, zsh or fish." enum:"bash,zsh,fish"`
}

//go:embed completion
var completionScripts embed.FS

// Run prints the script that makes the shell ask the program itself what could come next.
func (c *completionCmd) Run(std streams) error {
	script, err := completionScripts.ReadFile(path.Join("completion", "pinseal."+c.Shell))
	if err != nil {
		return err
	}
	_, err = std.out.Write(script)
	return err
}

// completeCmd answers the shells' scripts.
type completeCmd struct {
	Words []string `arg:"" optional:"" help:"The words after the program's name, the one under the cursor last."`
}

// What a script is told instead of a list of words, because its shell knows better.
const (
	completeFiles   = ":files"
	completeFolders = ":folders"
)

// Run prints what the last word could become: a line each, with its explanation after a tab.
func (c *completeCmd) Run(ctx *kong.Context, std streams) error {
	words := splitAssignments(c.Words)
	if len(words) == 0 {
		words = []string{""}
	}
	last := len(words) - 1
	place := placeOf(ctx.Model.Node, words[:last])
	return place.suggest(std.out, words[last])
}

// splitAssignments makes --flag=value two words, as bash has it, and drops the sign.
func splitAssignments(words []string) []string {
	var split []string
	for i, word := range words {
		flag, value, assigned := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, "--") && assigned:
			split = append(split, flag, value)
		case word != "=":
			split = append(split, word)
		case i == len(words)-1:
			split = append(split, "")
		}
	}
	return split
}

// wordPlace is where on the command line a word stands.
type wordPlace struct {
	node       *kong.Node
	positional int        // how many arguments the node has already
	flag       *kong.Flag // whose value comes next; nil if none does
	noFlags    bool       // after --
}

func placeOf(root *kong.Node, words []string) wordPlace {
	p := wordPlace{node: root}
	for _, word := range words {
		switch {
		case p.flag != nil:
			p.flag = nil
		case p.noFlags:
			p.positional++
		case word == "--":
			p.noFlags = true
		case len(word) > 1 && word[0] == '-':
			p.flag = p.waiting(word)
		default:
			p.enter(word)
		}
	}
	return p
}

// enter goes to the command of that name, or counts the word as an argument.
func (p *wordPlace) enter(word string) {
	for _, child := range p.node.Children {
		if child.Name == word {
			p.node = child
			return
		}
	}
	p.positional++
}

// waiting gives the flag that takes the next word as its value, if this one is such a flag: of short ones only the last can.
func (p *wordPlace) waiting(word string) *kong.Flag {
	for _, flag := range p.flags() {
		if word == "--"+flag.Name || word[1] != '-' && rune(word[len(word)-1]) == flag.Short {
			if flag.IsBool() || flag.IsCounter() {
				return nil
			}
			return flag
		}
	}
	return nil
}

func (p *wordPlace) flags() []*kong.Flag { return slices.Concat(p.node.AllFlags(true)...) }

// suggest prints what a word could become here.
func (p *wordPlace) suggest(w io.Writer, word string) error {
	switch {
	case p.flag != nil:
		return suggestValue(w, p.flag.Value, word)
	case strings.HasPrefix(word, "-") && !p.noFlags:
		return p.suggestFlags(w, word)
	case len(p.node.Children) > 0:
		return p.suggestCommands(w, word)
	default:
		return p.suggestArgument(w, word)
	}
}

func (p *wordPlace) suggestFlags(w io.Writer, word string) error {
	for _, flag := range p.flags() {
		if name := "--" + flag.Name; strings.HasPrefix(name, word) {
			if _, err := fmt.Fprintf(w, "%s\t%s\n", name, flag.Help); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *wordPlace) suggestCommands(w io.Writer, word string) error {
	for _, child := range p.node.Children {
		if !child.Hidden && strings.HasPrefix(child.Name, word) {
			if _, err := fmt.Fprintf(w, "%s\t%s\n", child.Name, child.Help); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *wordPlace) suggestArgument(w io.Writer, word string) error {
	arguments := p.node.Positional
	if len(arguments) == 0 {
		return nil
	}
	argument := arguments[min(p.positional, len(arguments)-1)]
	if p.positional >= len(arguments) && !argument.IsCumulative() {
		return nil
	}
	return suggestValue(w, argument, word)
}

// suggestValue prints the words that a value can have, or what kind of path it is.
func suggestValue(w io.Writer, value *kong.Value, word string) error {
	var err error
	switch {
	case value.Enum != "":
		for _, possible := range value.EnumSlice() {
			if strings.HasPrefix(possible, word) && err == nil {
				_, err = fmt.Fprintln(w, possible)
			}
		}
	case value.Tag.Type == "existingdir" || value.Tag.PlaceHolder == "FOLDER" || value.Tag.PlaceHolder == "DIR":
		_, err = fmt.Fprintln(w, completeFolders)
	case value.Tag.Type == "existingfile" || value.Tag.Type == "path" || value.Name == "file":
		_, err = fmt.Fprintln(w, completeFiles)
	}
	return err
}
