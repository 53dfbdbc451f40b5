package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCmd(p *process) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Args: cobra.ExactArgs(1),
		Long: `Writes a manual page for each command into a folder, which is made if it is missing. The packages for
Debian and RPM systems have them already. Their date is today's, or that of SOURCE_DATE_EPOCH.`,
		Example: `  curfew man ~/.local/share/man/man1
  man curfew-session-end`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Section: "1", Source: "curfew " + version(),
				Manual: "Curfew"}, args[0])
		},
	}
}
