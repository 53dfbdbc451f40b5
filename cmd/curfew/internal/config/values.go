package config

import (
	"errors"
	"fmt"
	"net"
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

// list returns a list: in the file a sequence or one value, elsewhere a text separated by commas or spaces.
func (v value) list() ([]string, error) {
	if v.node != nil {
		if n := resolve(v.node); n.Kind == yaml.SequenceNode {
			var all []string
			for _, item := range n.Content {
				s, err := value{node: item}.scalar()
				if err != nil {
					return nil, err
				}
				all = append(all, s)
			}
			return all, nil
		}
	}
	s, err := v.scalar()
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }), err
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
		if web.ReturnTo(s) != s {
			return fmt.Errorf("%q is not a path on this site; write it like / or /welcome", s)
		}
		*to = s
		return nil
	})
}

// texts returns a setter for a list of texts.
func texts(to *[]string) func(value) error {
	return func(v value) (err error) {
		*to, err = v.list()
		return err
	}
}
