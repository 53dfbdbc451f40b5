package oauth2proxy

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.com/curfew/cmd/curfew/internal/config"
)

const (
	envPrefix = "OAUTH2_PROXY_"
	maxFile   = 1 << 20
)

// setting is an option that is set, and where.
type setting struct {
	option *option
	values []string // one, or those of a list
	where  string
}

func (s *setting) value() string {
	if s == nil || len(s.values) == 0 {
		return ""
	}
	return s.values[0]
}

// isDefault reports whether the value is the one that oauth2-proxy has without it.
func (s *setting) isDefault() bool {
	return s.option.def != "" && len(s.values) == 1 && s.values[0] == s.option.def
}

// input is a configuration of oauth2-proxy.
type input struct {
	settings map[string]*setting // by flag
	headers  []header            // of the alpha configuration
	routes   []route             // of the alpha configuration
	alpha    bool
	items    []Item // what became of fields of the alpha configuration that are no options
	faults   []error
}

func (in *input) fault(where, format string, args ...any) {
	in.faults = append(in.faults, fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...)))
}

func byFlag() map[string]*option {
	all := map[string]*option{}
	for _, o := range options() {
		all[o.flag] = &o
	}
	return all
}

// read reads everything: flags override the environment, which overrides the file, as in oauth2-proxy.
func read(args, environ []string) *input {
	in := &input{settings: map[string]*setting{}}
	flags, file, alpha := in.readFlags(args)
	if file != "" {
		in.readFile(file)
	}
	in.readEnviron(environ)
	maps.Copy(in.settings, flags)
	if alpha != "" {
		in.readAlpha(alpha, environ)
	}
	return in
}

// readFlags reads the command line as oauth2-proxy does: --name value, --name=value, and --name for a boolean.
func (in *input) readFlags(args []string) (found map[string]*setting, file, alpha string) {
	known := byFlag()
	names := map[string]bool{}
	for name := range known {
		names["--"+name] = true
	}
	found = map[string]*setting{}
	for i := 0; i < len(args); i++ {
		name, text, has := strings.Cut(args[i], "=")
		if !strings.HasPrefix(name, "--") {
			in.fault("command line", "%q is not an option%s", name, config.Nearest("-"+name, names))
			continue
		}
		o := known[name[2:]]
		special := slices.Contains([]string{"config", "alpha-config"}, name[2:])
		if slices.Contains([]string{"version", "config-test", "convert-config-to-alpha"}, name[2:]) {
			continue // these do something else than to serve
		}
		if o == nil && !special {
			in.fault(name, "oauth2-proxy has no such option%s", config.Nearest(name, names))
			if !has && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
			}
			continue
		}
		switch {
		case has:
		case !special && o.kind == boolean:
			text = "true"
		case i+1 == len(args):
			in.fault(name, "needs a value")
			continue
		default:
			i++
			text = args[i]
		}
		switch {
		case name == "--config":
			file = text
		case name == "--alpha-config":
			alpha = text
		default:
			if s := in.parse(o, name, text); s != nil {
				if before := found[o.flag]; before != nil && o.kind == list {
					s.values = append(before.values, s.values...)
				}
				found[o.flag] = s
			}
		}
	}
	return found, file, alpha
}

// parse returns a setting, or nil for an empty value or a fault.
func (in *input) parse(o *option, where, raw string) *setting {
	s := &setting{option: o, where: where}
	if raw == "" {
		return nil
	}
	switch o.kind {
	case list:
		fields, err := csv.NewReader(strings.NewReader(raw)).Read()
		if err != nil {
			in.fault(where, "is not a list separated by commas")
			return nil
		}
		s.values = fields
	case boolean:
		b, err := strconv.ParseBool(raw)
		if err != nil {
			in.fault(where, "%s", wrong(o, raw, "neither true nor false"))
			return nil
		}
		s.values = []string{strconv.FormatBool(b)}
	case number:
		if _, err := strconv.Atoi(raw); err != nil {
			in.fault(where, "%s", wrong(o, raw, "not a whole number"))
			return nil
		}
		s.values = []string{raw}
	case duration:
		d, err := time.ParseDuration(raw)
		if n, errInt := strconv.ParseInt(raw, 10, 64); err != nil && errInt == nil {
			d, err = time.Duration(n), nil // viper takes a bare number as nanoseconds
		}
		if err != nil || d < 0 {
			in.fault(where, "%s", wrong(o, raw, "not a duration like 30s or 2h"))
			return nil
		}
		s.values = []string{d.String()}
	default:
		s.values = []string{raw}
	}
	return s
}

func wrong(o *option, raw, why string) string {
	if o.secret || len(raw) > 40 {
		return "is " + why
	}
	return fmt.Sprintf("%q is %s", raw, why)
}

// readEnviron reads the OAUTH2_PROXY_* variables, but not those that Kubernetes sets for a service named oauth2-proxy.
func (in *input) readEnviron(environ []string) {
	known, names := map[string]*option{}, map[string]bool{}
	for _, o := range byFlag() {
		name := envPrefix + strings.ToUpper(o.fileKey())
		known[name], names[name] = o, true
	}
	for _, line := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(line, "=")
		key, ours := strings.CutPrefix(name, envPrefix)
		if !ours || text == "" || key == "PORT" || strings.HasPrefix(key, "PORT_") ||
			strings.HasPrefix(key, "SERVICE_") {
			continue
		}
		o := known[name]
		if o == nil {
			in.fault(name, "oauth2-proxy reads no such variable%s", config.Nearest(name, names))
			continue
		}
		if s := in.parse(o, name, text); s != nil {
			in.settings[o.flag] = s
		}
	}
}

// readFile reads the configuration file, which is TOML.
func (in *input) readFile(name string) {
	b, err := readBounded(name)
	if err != nil {
		in.fault("--config", "%w", err)
		return
	}
	var all map[string]any
	if err := toml.Unmarshal(b, &all); err != nil {
		line := 0
		if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ = wrong.Position()
		}
		// The message of the library may quote the line, which may hold a secret.
		in.fault(fmt.Sprintf("%s:%d", name, line), "is not valid TOML: write key = \"value\"")
		return
	}
	known, names := map[string]*option{}, map[string]bool{}
	for _, o := range byFlag() {
		known[o.fileKey()], names[o.fileKey()] = o, true
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		where := fmt.Sprintf("%s:%d: %s", name, lineOf(b, key), key)
		o := known[key]
		if o == nil {
			in.fault(where, "oauth2-proxy has no such option%s", config.Nearest(key, names))
			continue
		}
		if s := in.fromFile(o, where, all[key]); s != nil {
			in.settings[o.flag] = s
		}
	}
}

// fromFile returns the setting of a value in a file.
func (in *input) fromFile(o *option, where string, value any) *setting {
	items, isList := value.([]any)
	if !isList {
		raw, ok := scalar(value)
		if !ok {
			in.fault(where, "want a single value or a list")
			return nil
		}
		return in.parse(o, where, raw)
	}
	if o.kind != list {
		in.fault(where, "want a single value, not a list")
		return nil
	}
	s := &setting{option: o, where: where}
	for _, item := range items {
		raw, ok := scalar(item)
		if !ok {
			in.fault(where, "want a list of texts")
			return nil
		}
		if raw != "" {
			s.values = append(s.values, raw)
		}
	}
	if len(s.values) == 0 {
		return nil
	}
	return s
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case int:
		return strconv.Itoa(v), true
	}
	return "", false
}

// lineOf returns the line on which a key stands, or 0.
func lineOf(file []byte, key string) int {
	at := regexp.MustCompile(`(?m)^[ \t]*["']?` + regexp.QuoteMeta(key) + `["']?[ \t]*[=:]`).FindIndex(file)
	if at == nil {
		return 0
	}
	return 1 + strings.Count(string(file[:at[0]]), "\n")
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return b, err
}
