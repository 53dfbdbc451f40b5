package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/curfew/cmd/curfew/internal/check"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/terminal"
)

func newCheckCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and say what to do about faults",
		Long: `Reads the same configuration as serve, checks each provider, the store, and the files that serve reads and
writes, and prints what is right, what is doubtful and what is wrong. It changes nothing, and can run beside serve.

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
		r, err := check.Run(cmd.Context(), c)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeReportJSON(p, r)
		} else {
			writeReport(p, r)
		}
		if err == nil && r.Count(check.Fault) > 0 {
			err = exit{status: 1}
		}
		return err
	}
	return cmd
}

func writeReport(p *process, r *check.Report) {
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
	for _, f := range r.Findings {
		if f.About != about {
			flush()
			about = f.About
		}
		rows = append(rows, terminal.Row{Status: f.Status, Name: f.Check, Detail: f.Detail, More: f.Do})
	}
	flush()
	fmt.Fprintf(p.stdout, "%s, %s, %d not checked\n",
		terminal.Count(r.Count(check.Fault), "fault"), terminal.Count(r.Count(check.Warning), "warning"),
		r.Count(check.Unchecked))
}

func writeReportJSON(p *process, r *check.Report) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		OK       bool            `json:"ok"`
		Version  string          `json:"version"`
		Findings []check.Finding `json:"findings"`
	}{r.Count(check.Fault) == 0, version(), r.Findings})
}
