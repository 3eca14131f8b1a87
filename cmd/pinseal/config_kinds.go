package main

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// checkLengths refuses a bare number where a text with a unit is needed: the decoder would take 30 for 30 nanoseconds.
func checkLengths(data []byte, t reflect.Type) error {
	var written map[string]any
	_ = toml.Unmarshal(data, &written) // what else is wrong, the decoder tells with line and column
	return checkKinds(data, written, t, place{})
}

// checkKinds walks what was written beside the type it was decoded into, p being where it stands.
func checkKinds(data []byte, written any, t reflect.Type, p place) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isNumber(t) && reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		if _, ok := written.(string); !ok {
			return at(data, p, `%s: %v has no unit; write a text, such as "30s"`, p.key, written)
		}
	case t.Kind() == reflect.Struct:
		table, _ := written.(map[string]any)
		for field := range t.Fields() {
			key, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
			value, there := table[key]
			if !there {
				continue
			}
			inner := place{p.table, p.index, key}
			if kind := field.Type.Kind(); kind == reflect.Struct || kind == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct {
				inner = place{table: key}
			}
			if err := checkKinds(data, value, field.Type, inner); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Slice:
		list, _ := written.([]any)
		for i, value := range list {
			if t.Elem().Kind() == reflect.Struct {
				p.index = i
			}
			if err := checkKinds(data, value, t.Elem(), p); err != nil {
				return err
			}
		}
	default:
	}
	return nil
}

func isNumber(t reflect.Type) bool { return t.Kind() == reflect.Int64 }

// wrongKind is how the decoder says that a value is of another kind than its key, in Go's words.
var wrongKind = regexp.MustCompile(`cannot decode TOML (\w+) into .*`)

// wordKind says it without them.
func wordKind(message string) string {
	if strings.HasPrefix(message, "expected keyword ") || strings.HasSuffix(message, " at start of value") {
		return "this is no value: text stands in quotes; true, false and numbers do not"
	}
	return wrongKind.ReplaceAllStringFunc(message, func(text string) string {
		return fmt.Sprintf("cannot be of the kind %s", wrongKind.FindStringSubmatch(text)[1])
	})
}
