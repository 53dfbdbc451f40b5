package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newManCmd(p *process) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Args: takes("DIR"),
		Long: `Writes a manual page for each command into a folder, which is made if it is missing. The packages for
Debian and RPM systems have them already. Their date is today's, or that of SOURCE_DATE_EPOCH.`,
		Example: `  curfew man ~/.local/share/man/man1
  man curfew-session-end`,
		RunE: func(cmd *cobra.Command, args []string) error {
			date := time.Now()
			if epoch := p.getenv("SOURCE_DATE_EPOCH"); epoch != "" {
				seconds, err := strconv.ParseInt(epoch, 10, 64)
				if err != nil {
					return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
				}
				date = time.Unix(seconds, 0)
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writePages(cmd.Root(), args[0], date.UTC().Format(time.DateOnly))
		},
	}
}

// writePages writes the pages of a command and of those below it.
func writePages(cmd *cobra.Command, dir, date string) error {
	cmd.InitDefaultHelpFlag()
	name := pageName(cmd)
	if err := os.WriteFile(filepath.Join(dir, name+".1"), []byte(manualPage(cmd, date)), 0o644); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			if err := writePages(sub, dir, date); err != nil {
				return err
			}
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manualPage returns the page of a command, in the macros of man(7). cobra has a writer of its own, but that takes the
// text for Markdown, and loses what looks like it.
func manualPage(cmd *cobra.Command, date string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.TH "%s" "1" "%s" "curfew %s" "Curfew"`, roff(strings.ToUpper(pageName(cmd))), date, roff(version()))
	line(".nh\n.ad l\n.SH NAME\n%s \\- %s", roff(pageName(cmd)), roff(cmd.Short))
	line(".SH SYNOPSIS\n.B %s", roff(cmd.UseLine()))
	if cmd.Long != "" {
		line(".SH DESCRIPTION")
		for i, paragraph := range strings.Split(strings.TrimSpace(cmd.Long), "\n\n") {
			if i > 0 {
				line(".PP")
			}
			if strings.Contains("\n"+paragraph, "\n ") { // a list or a table
				line(".nf\n%s\n.fi", roff(paragraph))
			} else {
				line("%s", roff(paragraph))
			}
		}
	}
	options(line, "OPTIONS", cmd.NonInheritedFlags())
	options(line, "OPTIONS OF ALL COMMANDS HERE", cmd.InheritedFlags())
	if cmd.Example != "" {
		line(".SH EXAMPLES\n.nf\n%s\n.fi", roff(strings.TrimRight(cmd.Example, "\n")))
	}
	var others []string
	if cmd.HasParent() {
		others = append(others, pageName(cmd.Parent()))
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			others = append(others, pageName(sub))
		}
	}
	if len(others) > 0 {
		line(".SH SEE ALSO")
	}
	for i, name := range others {
		end := ","
		if i == len(others)-1 {
			end = ""
		}
		line(".BR %s (1)%s", roff(name), end)
	}
	return b.String()
}

func options(line func(string, ...any), title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	line(".SH %s", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		arg, usage := pflag.UnquoteUsage(f)
		names := roff("--" + f.Name)
		if f.Shorthand != "" {
			names = roff("-"+f.Shorthand) + ", " + names
		}
		if arg != "" {
			names += " " + roff(arg)
		}
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" && !strings.Contains(usage, "(default") {
			usage += fmt.Sprintf(" (default %s)", d)
		}
		line(".TP\n.B %s\n%s", names, roff(usage))
	})
}

// roff escapes text.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "`", `\(ga`, "'", `\(aq`, `"`, `\(dq`,
		"\t", "    ").Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
