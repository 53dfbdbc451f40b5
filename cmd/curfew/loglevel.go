package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"example.com/curfew/console"
)

func newLogLevelCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log-level [debug|info|warn|error]",
		Short: "Show or change the level of the log of a running gateway",
		Long: `Shows the level of the log of the gateway at --admin, or changes it until that process ends. Each replica has
its own. The audit record says who changed it.`,
		Example: "  curfew log-level debug",
		Args:    cobra.MaximumNArgs(1), ValidArgs: []string{"debug", "info", "warn", "error"},
	}
	client := adminFlag(cmd, p)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var is console.LogLevel
		method, path := http.MethodGet, "/api/log-level"
		if len(args) == 1 {
			if err := cobra.OnlyValidArgs(cmd, args); err != nil {
				return exit{2, fmt.Errorf("%q is not a level: want debug, info, warn or error", args[0])}
			}
			method, path = http.MethodPost, path+"?level="+args[0]
		}
		if err := client.do(cmd.Context(), method, path, &is); err != nil {
			return err
		}
		fmt.Fprintln(p.stdout, is.Level)
		return nil
	}
	return cmd
}
