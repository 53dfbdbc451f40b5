package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// loader collects values by setting, and faults.
type loader struct {
	file      string
	globals   map[string]value
	single    map[string]value // from flags and environment, for the only provider
	providers []block
	apps      []block
	unread    map[string]bool // lists of the file that are none; "" if the file could not be read
	faults    Faults
}

// put stores the value of a setting, unless a later layer has set it. It reports whether the setting exists.
func (l *loader) put(key string, v value) bool {
	for _, half := range []struct {
		settings []setting
		values   map[string]value
	}{{new(Config).settings(), l.globals}, {new(Provider).settings(), l.single}} {
		if slices.ContainsFunc(half.settings, func(s setting) bool { return s.key == key }) {
			if half.values[key].layer < v.layer {
				half.values[key] = v
			}
			return true
		}
	}
	return false
}

// readEnviron reads the CURFEW_* variables. It ignores empty ones, those that Kubernetes sets for a service named
// curfew (CURFEW_PORT_4180_TCP and the like), and CURFEW_OPERATOR, with which operators name themselves to other
// commands.
func (l *loader) readEnviron(environ []string) {
	seen := map[string]bool{}
	for _, line := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(line, "=")
		key, ours := strings.CutPrefix(name, envPrefix)
		if !ours || text == "" || key == "PORT" || strings.HasPrefix(key, "PORT_") ||
			strings.HasPrefix(key, "SERVICE_") || key == "OPERATOR" {
			continue
		}
		v := value{text: text, where: name, layer: layerEnv}
		if seen[name] {
			l.faults.add(v, errors.New("is set twice"))
		}
		seen[name] = true
		switch {
		case key == "CONFIG":
			if l.file == "" {
				l.file = text
			}
		case key != strings.ToUpper(key) || !l.put(strings.ToLower(key), v):
			l.faults.add(v, fmt.Errorf("there is no such setting%s",
				cmp.Or(Nearest(strings.ToUpper(name), variables()), "; docs/configuration.md lists them")))
		}
	}
}

// variables returns the names of all variables.
func variables() map[string]bool {
	all := map[string]bool{envPrefix + "CONFIG": true}
	for _, s := range slices.Concat(new(Config).settings(), new(Provider).settings()) {
		all[s.env()] = true
	}
	return all
}

// apply sets the given values, and the defaults of all other settings. It returns the keys of those with a fault.
func (l *loader) apply(settings []setting, values map[string]value, path string) (failed map[string]bool) {
	failed = map[string]bool{}
	for _, s := range settings {
		v, given := values[s.key]
		if !given {
			if s.def == "" {
				continue
			}
			v = value{text: s.def, path: path + s.key}
		}
		if err := s.set(v); err != nil {
			l.faults.add(v, err)
			failed[s.key] = true
		}
	}
	return failed
}

func howToSet(key string) string {
	s := setting{key: key}
	return fmt.Sprintf("give --%s, %s, or %s", s.flag(), s.env(), key)
}
