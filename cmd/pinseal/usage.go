package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// usageHint adds how the command is called to a mistake on the command line that has no better hint.
func usageHint(err error, command *kong.Node) error {
	coded, ok := errors.AsType[*codeError](err)
	if !ok || coded.code != exitUsage {
		return err
	}
	if _, hinted := errors.AsType[*hintError](err); hinted {
		return err
	}
	switch {
	case command == nil || command.Type != kong.CommandNode:
		return withHint(err, "pinseal --help lists the commands")
	case len(command.Children) > 0:
		return withHint(err, "pinseal --help lists the commands of %s", command.Path())
	default:
		return withHint(err, "usage: pinseal %s; pinseal %s --help explains it", command.Summary(), command.Path())
	}
}

// parseError words what kong found wrong with the command line, and says how the command is called.
func parseError(err error) error {
	parse, ok := errors.AsType[*kong.ParseError](err)
	if !ok {
		return withCode(exitUsage, err)
	}
	command := parse.Context.Selected()
	return usageHint(withCode(exitUsage, errors.New(wordParseError(err.Error(), command))), command)
}

func wordParseError(text string, command *kong.Node) string {
	if argument, ok := strings.CutPrefix(text, `expected "`); ok {
		return strings.TrimSuffix(argument, `"`) + " is missing"
	}
	if strings.HasPrefix(text, "expected one of ") && command != nil {
		var names []string
		for _, child := range visible(command.Children) {
			names = append(names, child.Name)
		}
		return fmt.Sprintf("pinseal %s what? %s", command.Path(), strings.Join(names, ", "))
	}
	if word, ok := strings.CutPrefix(text, "unexpected argument "); ok && command == nil {
		return "there is no command " + word
	}
	if flag, _, ok := strings.Cut(text, `: expected `); ok && strings.HasSuffix(text, "<EOL>)") {
		return flag + " needs a value"
	}
	if flag, rest, ok := strings.Cut(text, `: expected `); ok {
		if _, instead, ok := strings.Cut(rest, "perhaps try "); ok {
			return flag + " needs a value, and what follows looks like a flag: perhaps " + strings.TrimSuffix(instead, "?")
		}
	}
	if flag, ok := strings.CutPrefix(text, "missing flags: "); ok {
		return flag + " is missing"
	}
	return text
}

// valueHelp is what --help says of a flag, with the default where its place is taken by what kind of value it has.
func valueHelp(value *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(value)
	if value.Tag.PlaceHolder == "" || value.Default == "" || value.Flag == nil {
		return help
	}
	return strings.TrimSuffix(help, ".") + "; default: " + value.Default + "."
}

// parameterTypes are the kinds of flags and arguments whose mistakes kong would tell in Go's words.
func parameterTypes() []kong.Option {
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.NamedMapper("existingfile", existing(func(info os.FileInfo) error {
			if info.IsDir() {
				return errors.New("is a folder, not a file")
			}
			return nil
		})),
		kong.NamedMapper("existingdir", existing(func(info os.FileInfo) error {
			if !info.IsDir() {
				return errors.New("is not a folder")
			}
			return nil
		})),
	}
}

// checkSeconds wants of -W what can be waited for.
func checkSeconds(given float64) error {
	if !(given >= 0) { // or no number at all
		return usagef("--wait is a number of seconds, not below 0")
	}
	return nil
}

// seconds is a time to wait, for ever if there is no longer one.
func seconds(given float64) time.Duration {
	if given >= time.Duration(math.MaxInt64).Seconds() {
		return math.MaxInt64
	}
	return time.Duration(given * float64(time.Second))
}

func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a length of time, such as 30s, 5m or 24h", text)
	}
	target.SetInt(int64(d))
	return nil
}

// existing takes the path of what is there and suits.
func existing(suits func(os.FileInfo) error) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		var path string
		if err := ctx.Scan.PopValueInto("file", &path); err != nil {
			return err
		}
		full := kong.ExpandPath(path)
		info, err := os.Stat(full)
		if err == nil {
			err = suits(info)
		}
		if path, ok := errors.AsType[*os.PathError](err); ok {
			err = path.Err
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		target.SetString(full)
		return nil
	}
}
