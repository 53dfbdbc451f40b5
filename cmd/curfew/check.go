package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/terminal"
)

// finding is the result of one check.
type finding struct {
	About  string `json:"about"` // "provider main", "this gateway"
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warning, fault, not checked
	Detail string `json:"detail"`
	Do     string `json:"do,omitempty"`
}

// report collects findings.
type report struct {
	about string
	all   []finding
}

func (r *report) ok(check, format string, args ...any) {
	r.all = append(r.all, finding{r.about, check, "ok", fmt.Sprintf(format, args...), ""})
}

// unchecked adds what could not be checked, or where the result says nothing.
func (r *report) unchecked(check, detail, do string) {
	r.all = append(r.all, finding{r.about, check, "not checked", detail, do})
}

func (r *report) warn(check, detail, do string) {
	r.all = append(r.all, finding{r.about, check, "warning", detail, do})
}

func (r *report) fault(check, detail, do string) {
	r.all = append(r.all, finding{r.about, check, "fault", detail, do})
}

func (r *report) count(status string) (n int) {
	for _, f := range r.all {
		if f.Status == status {
			n++
		}
	}
	return n
}

func newCheckCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and say what to do about faults",
		Long: `Reads the same configuration as serve, checks each provider, the store and the key file, and prints
what is right, what is doubtful and what is wrong. It changes nothing, and can run beside serve.

The exit status is 0 without faults (warnings do not count), 1 with faults, 2 if the configuration is wrong.`,
		Example: `  curfew check --config curfew.yaml
  curfew check --config curfew.yaml --json | jq '.findings[] | select(.status != "ok")'`,
		Args: cobra.NoArgs,
	}
	load := config.Flags(cmd.Flags(), p.environ)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		r, err := check(cmd.Context(), c)
		if err != nil {
			return err
		}
		if *asJSON {
			err = r.writeJSON(p)
		} else {
			r.write(p)
		}
		if err == nil && r.count("fault") > 0 {
			err = exit{status: 1}
		}
		return err
	}
	return cmd
}

// check runs all checks, one after the other: first the providers, then this gateway.
func check(ctx context.Context, c *config.Config) (*report, error) {
	// A relying party with this configuration says which URLs to register. It is never run.
	providers, err := c.NewProviders()
	if err != nil {
		return nil, err
	}
	rp, err := curfew.New(ctx, c.RelyingParty(nil, nil, nil, curfew.Observer{}))
	if err != nil {
		return nil, config.Faults{err}
	}
	registrations := rp.Registrations()
	if err := rp.Close(); err != nil {
		return nil, err
	}
	r := new(report)
	// Each has its own time limit: one that hangs does not affect the next.
	within := func(look func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		look(ctx)
	}
	for i, p := range providers {
		r.about = "provider " + p.Name()
		within(func(ctx context.Context) { checkProvider(ctx, r, p, registrations[i], c.GroupsClaim) })
	}
	r.about = "this gateway"
	within(func(ctx context.Context) { checkStore(ctx, r, c) })
	checkKeyFile(r, c)
	checkHosts(r, c)
	checkCertificate(r, c)
	checkPolicy(r, c)
	return r, nil
}

func (r *report) write(p *process) {
	colours := p.painter()
	var about string
	var rows []terminal.Row
	flush := func() {
		if len(rows) > 0 {
			fmt.Fprintf(p.stdout, "%s\n", about)
			terminal.WriteRows(p.stdout, colours, "  ", rows)
			fmt.Fprintln(p.stdout)
		}
		rows = nil
	}
	for _, f := range r.all {
		if f.About != about {
			flush()
			about = f.About
		}
		rows = append(rows, terminal.Row{Status: f.Status, Name: f.Check, Detail: f.Detail, More: f.Do})
	}
	flush()
	fmt.Fprintf(p.stdout, "%s, %s, %d not checked\n",
		terminal.Count(r.count("fault"), "fault"), terminal.Count(r.count("warning"), "warning"),
		r.count("not checked"))
}

func (r *report) writeJSON(p *process) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		OK       bool      `json:"ok"`
		Version  string    `json:"version"`
		Findings []finding `json:"findings"`
	}{r.count("fault") == 0, version(), r.all})
}
