package oauth2proxy

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"example.com/curfew/cmd/curfew/internal/config"
)

// Result is a translated configuration.
type Result struct {
	Items  []Item
	YAML   []byte // the configuration
	Secret string // the client secret, for a file of its own; empty: the configuration names a file
	Env    string // variables with secrets, for an environment file; empty: none
}

// Files names the files that a [Result] is going to be written to.
type Files struct{ Config, Secret, Env string }

// Translate reads a configuration of oauth2-proxy from its command line (with --config and --alpha-config) and its
// environment, which has the form of [os.Environ]. The error is a [config.Faults] with everything that is wrong.
func Translate(args, environ []string, files Files) (*Result, error) {
	in := read(args, environ)
	t := &translator{input: in, files: files, top: newDocument(), provider: newDocument(), people: newRule()}
	if len(in.faults) == 0 {
		t.translate()
	}
	if len(in.faults) > 0 {
		return nil, config.Faults(in.faults)
	}
	yaml, err := t.top.bytes("Made by `curfew import oauth2-proxy`. docs/configuration.md describes each setting.")
	if err != nil {
		return nil, err
	}
	t.result.Items, t.result.YAML = slices.Concat(in.items, t.items), yaml
	return &t.result, nil
}

// translator makes one configuration.
type translator struct {
	*input
	files    Files
	result   Result
	items    []Item
	top      *document
	provider *document
	main     *url.URL // of the site
	require  map[string][]string
	people   *conditions       // who may use the site
	headers  map[string]string // identity_headers
	preset   string
}

// say records what became of a setting.
func (t *translator) say(s *setting, outcome Outcome, format string, args ...any) {
	name := s.where
	if !strings.Contains(name, s.option.fileKey()) && !strings.Contains(name, s.option.flag) &&
		!strings.Contains(name, strings.ToUpper(s.option.fileKey())) {
		name += " (--" + s.option.flag + ")" // a field of the alpha configuration
	}
	t.items = append(t.items, Item{name, outcome, fmt.Sprintf(format, args...)})
}

// get returns a setting, or nil if it is not set.
func (t *translator) get(flag string) *setting { return t.settings[flag] }

// value returns the value of a setting, or its default.
func (t *translator) value(flag string) string {
	if s := t.get(flag); s != nil {
		return s.value()
	}
	return byFlag()[flag].def
}

func (t *translator) on(flag string) bool { return t.value(flag) == "true" }

// carry records a setting as carried over, if it is set.
func (t *translator) carry(to string, flags ...string) {
	for _, flag := range flags {
		if s := t.get(flag); s != nil {
			t.say(s, Carried, "%s", to)
		}
	}
}

// missing reports a fault for a setting without which nothing can be written.
func (t *translator) missing(flag, why string) {
	where := "--" + flag
	if s := t.get(flag); s != nil {
		where = s.where
	}
	t.fault(where, "%w", errors.New(why))
}

func (t *translator) translate() {
	t.site()
	t.apps()
	t.identity()
	t.sessions()
	t.signIn()
	t.restrictions()
	t.policy()
	t.logs()
	if len(t.require) > 0 {
		t.provider.set("require", t.require)
	}
	t.top.set("providers", []*document{t.provider})
	for _, o := range options() {
		s := t.get(o.flag)
		switch {
		case s == nil || o.outcome == "":
		case s.isDefault() && o.outcome != Differs:
			t.say(s, NotNeeded, "the default")
		default:
			t.say(s, o.outcome, "%s", o.note)
		}
	}
}
