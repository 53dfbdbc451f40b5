package main

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/curfew/demo"
)

const demoPort = 8400

func newDemoCmd(p *process) *cobra.Command {
	var port int
	var verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: a provider, two apps and two gateways on this machine",
		Long: `Demo starts, in one process and on this machine alone, a development provider with three people and two
small apps, each behind a gateway of its own, and prints what to open and what to click. Nothing is kept.`,
		Example: `  curfew demo
  curfew demo --port 9400`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port < 0 || port > 65535-3 {
				return exit{2, fmt.Errorf("--port: want 1 to %d, the first of four in a row, or 0", 65535-3)}
			}
			cfg := demo.Config{Port: port, Out: p.stdout}
			if verbose {
				cfg.Log = slog.New(slog.NewTextHandler(p.stderr, nil))
			}
			err := demo.Run(cmd.Context(), cfg)
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%w\nAnother program has it. The demo needs four ports in a row: "+
					"choose the first with --port, or --port 0 for any that are free", err)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&port, "port", demoPort,
		"the first of four ports: the page, the provider, and the two apps; 0 takes any that are free")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log each decision of the gateways to standard error")
	return cmd
}
