package config

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// Flags adds the flags of the configuration. Call load after the flags have been parsed; environ has the form of
// [os.Environ].
func Flags(flags *pflag.FlagSet, environ []string) (load func() (*Config, error)) {
	flags.SortFlags = false
	flags.Var(&once{arg: "FILE"}, "config", "the configuration file")
	for _, list := range [][]setting{new(Config).settings(), new(Provider).settings()} {
		for _, s := range list {
			if s.usage == "" {
				continue
			}
			usage := s.usage
			if s.def != "" {
				usage += fmt.Sprintf(" (default %s)", s.def)
			}
			flags.Var(&once{arg: s.arg}, s.flag(), usage)
		}
	}
	return func() (*Config, error) {
		given := map[string]string{}
		flags.Visit(func(f *pflag.Flag) {
			if v, ok := f.Value.(*once); ok {
				given[f.Name] = v.text
			}
		})
		return Load(given, environ)
	}
}

// once is a flag that may be given only once: otherwise one of two values would be ignored silently.
type once struct {
	arg   string
	text  string
	given bool
}

func (o *once) String() string { return "" }
func (o *once) Type() string   { return o.arg }
func (o *once) Set(s string) error {
	if o.given {
		return errors.New("is given twice")
	}
	o.text, o.given = s, true
	return nil
}
