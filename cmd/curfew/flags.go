package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configFlags gives a command the flags of the configuration. What it returns loads that.
func configFlags(cmd *cobra.Command, p *process) func() (*config, error) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&once{arg: "FILE"}, "config", "the configuration file")
	for _, list := range [][]setting{new(config).settings(), new(provider).settings()} {
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
	return func() (*config, error) {
		given := map[string]string{}
		flags.Visit(func(f *pflag.Flag) {
			if v, ok := f.Value.(*once); ok {
				given[f.Name] = v.text
			}
		})
		return loadConfig(given, p.environ)
	}
}

// once is a flag that is given at most once: the second time one of the two would be forgotten.
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
