package config

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/curfew/web"
)

// value is the value of a setting, and its source.
type value struct {
	node  *yaml.Node // in the file; nil if it is text
	text  string
	where string // "curfew.yaml:12", "CURFEW_URL", "--url"; empty for a default
	line  int    // in the file
	path  string // "providers[0].issuer"
	layer layer
}

// layer is a source of values: a later one overrides an earlier one.
type layer int

const (
	layerDefault layer = iota
	layerFile
	layerEnv
	layerFlag
)

// tree returns the value as YAML, also that of a flag or a variable. For invalid YAML it returns a node of no kind.
func (v value) tree() *yaml.Node {
	if v.node != nil {
		return resolve(v.node)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(v.text), &doc); err != nil || len(doc.Content) != 1 {
		return new(yaml.Node)
	}
	return doc.Content[0]
}

// scalar returns a single text value.
func (v value) scalar() (string, error) {
	s := v.text
	if v.node != nil {
		n := resolve(v.node)
		if n.Kind != yaml.ScalarNode {
			return "", errors.New("want a single value here, not a list or a map")
		}
		if s = n.Value; n.ShortTag() == "!!null" {
			s = ""
		}
	}
	if s == "" {
		return "", errors.New("is empty; remove it, or give a value")
	}
	return s, nil
}

// items returns the texts of a sequence, or false for a single value.
func (v value) items() (all []string, ok bool, err error) {
	if v.node == nil {
		return nil, false, nil
	}
	n := resolve(v.node)
	switch {
	case n.Kind == yaml.MappingNode:
		return nil, true, errors.New("want a list or a single value here, not a map")
	case n.Kind != yaml.SequenceNode:
		return nil, false, nil
	case len(n.Content) == 0:
		return nil, true, errEmptyList
	}
	var faults []error
	for i, item := range n.Content {
		s, err := value{node: item}.scalar()
		if err != nil {
			faults = append(faults, fmt.Errorf("entry %d: %w", i+1, err))
		}
		all = append(all, s)
	}
	return all, true, OneLine(errors.Join(faults...))
}

var (
	errEmptyList = errors.New("the list is empty; remove it, or give a value")
	errComma     = errors.New(`holds a comma: write a list, like [a, b], or ["a,b"] if it is one value`)
)

// words returns a list of values that by their syntax hold neither spaces nor commas: a sequence, or one text, in which
// these separate the values.
func (v value) words() ([]string, error) {
	if all, ok, err := v.items(); ok {
		return all, err
	}
	s, err := v.scalar()
	all := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	if err == nil && len(all) == 0 {
		err = errEmptyList
	}
	return all, err
}

// texts returns a list of values that may hold anything, such as names of groups: a sequence, or one text, which is one
// value. With a comma it would be unclear which of the two is meant.
func (v value) texts() ([]string, error) {
	if all, ok, err := v.items(); ok {
		return all, err
	}
	s, err := v.scalar()
	if err == nil && strings.Contains(s, ",") {
		err = errComma
	}
	return []string{s}, err
}

// parsed returns a setter that parses a text.
func parsed(parse func(string) error) func(value) error {
	return func(v value) error {
		s, err := v.scalar()
		if err != nil {
			return err
		}
		return parse(s)
	}
}

func text(to *string) func(value) error {
	return parsed(func(s string) error { *to = s; return nil })
}

func oneOf(to *string, choices ...string) func(value) error {
	return parsed(func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("%q is not one of: %s", s, strings.Join(choices, ", "))
		}
		*to = s
		return nil
	})
}

func boolean(to *bool) func(value) error {
	return parsed(func(s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*to = s == "true"
		return nil
	})
}

func whole(to *int, least, most int) func(value) error {
	return parsed(func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		*to = n
		return nil
	})
}

func status(to *int, choices ...int) func(value) error {
	return parsed(func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains(choices, n) {
			return fmt.Errorf("%q is neither %d nor %d", s, choices[0], choices[1])
		}
		*to = n
		return nil
	})
}

func duration(to *time.Duration, least time.Duration) func(value) error {
	return parsed(func(s string) error {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a duration; write it like 90s, 30m or 2h", s)
		case d < least:
			return fmt.Errorf("%s is too short; the least is %s", s, least)
		}
		*to = d
		return nil
	})
}

func address(to *string) func(value) error {
	return parsed(func(s string) error {
		_, port, err := net.SplitHostPort(s)
		if n, errPort := strconv.ParseUint(port, 10, 16); err != nil || errPort != nil || n > 65535 {
			return fmt.Errorf("%q is not an address; write it like 127.0.0.1:4180 or :4180", s)
		}
		*to = s
		return nil
	})
}

func sitePath(to *string) func(value) error {
	return parsed(func(s string) error {
		if err := web.CheckPath(s); err != nil {
			return fmt.Errorf("%q %w", s, err)
		}
		*to = s
		return nil
	})
}

// texts returns a setter for a list of free texts. After a fault there is no list.
func texts(to *[]string) func(value) error { return listed(to, value.texts, nil) }

// words returns a setter for a list of words, which check looks at unless it is nil. After a fault there is no list.
func words(to *[]string, check func([]string) error) func(value) error {
	return listed(to, value.words, check)
}

func listed(to *[]string, read func(value) ([]string, error), check func([]string) error) func(value) error {
	return func(v value) error {
		all, err := read(v)
		if err == nil && check != nil {
			err = OneLine(check(all))
		}
		if err == nil {
			*to = all
		}
		return err
	}
}

// each calls read for each key of a map and its value. The error has every fault.
func each(v value, want string, read func(key string, v value) error) error {
	n := v.tree()
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return errors.New("want " + want)
	}
	var faults []error
	seen := map[string]bool{}
	for key, node := range pairs(n) {
		if seen[key.Value] {
			faults = append(faults, fmt.Errorf("%s is there twice", key.Value))
		} else if err := read(key.Value, value{node: node}); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key.Value, err))
		}
		seen[key.Value] = true
	}
	return OneLine(errors.Join(faults...))
}

// Masked returns a URL for a message, without what may hold a password: its user, its query and its fragment. It need
// not be a valid URL.
func Masked(raw string) string {
	at, query := strings.LastIndexByte(raw, '@'), strings.IndexAny(raw, "?#")
	switch {
	case query >= 0 && query < at: // a password with a question mark, or a query with an @
		return "…"
	case query >= 0 && query < len(raw)-1:
		raw = raw[:query+1] + "…"
	}
	if at >= 0 {
		raw = "…" + raw[at:]
	}
	return raw
}

var quoted = regexp.MustCompile(`"(\\.|[^"\\])*"…?`)

// masked returns err with raw masked where it is quoted, also in part.
func masked(err error, raw string) error {
	if m := Masked(raw); err != nil && m != raw {
		return errors.New(quoted.ReplaceAllLiteralString(err.Error(), strconv.Quote(m)))
	}
	return err
}
