package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program except for signals. It returns the exit status: 0 success, 1 failure, 2 wrong usage.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runIn(ctx, process{stdin, stdout, stderr, os.Environ()}, args)
}

// process is the environment of a command.
type process struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ []string
}

// getenv returns a variable that is not a setting, such as NO_COLOR.
func (p *process) getenv(name string) string {
	for _, line := range p.environ {
		if len(line) > len(name) && line[:len(name)] == name && line[len(name)] == '=' {
			return line[len(name)+1:]
		}
	}
	return ""
}

func (p *process) painter() terminal.Painter {
	w := p.stdout
	if o, ok := w.(*output); ok {
		w = o.to
	}
	return terminal.NewPainter(w, p.getenv)
}

// output remembers the first error of writing, so that no command ends with success whose output was lost.
type output struct {
	to io.Writer

	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		o.mu.Lock()
		o.err = cmp.Or(o.err, err)
		o.mu.Unlock()
	}
	return n, err
}

// fault returns the first error.
func (o *output) fault() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// exit ends a command with a status. Without an error nothing more is printed.
type exit struct {
	status int
	err    error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// newRoot returns the program's commands: the one description that help, completion and manual pages are made from.
func newRoot(p *process) *cobra.Command {
	root := &cobra.Command{
		Use:   "curfew",
		Short: "A session gateway for OpenID Connect, where a logout is a logout",
		Long: `Curfew signs people in with OpenID Connect, guards your app with their session, and ends the
session the moment that the provider says so (OpenID Connect Back-Channel Logout 1.0).`,
		Example: `  curfew serve --url http://127.0.0.1:4180 --issuer https://id.example.com \
    --client-id app --client-secret-file secret --upstream http://127.0.0.1:3000
  curfew check --config curfew.yaml
  curfew token explain token.txt --config curfew.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          chooseCommand,
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.AddCommand(
		newDemoCmd(p),
		newServeCmd(p),
		newCheckCmd(p),
		newTokenCmd(p),
		newSessionCmd(p),
		newWhyCmd(p),
		newEventsCmd(p),
		newPersonCmd(p),
		newNoticeCmd(p),
		newLogLevelCmd(p),
		newKeyCmd(p),
		newStoreCmd(p),
		newImportCmd(p),
		newManCmd(p),
		newVersionCmd(p),
	)
	addCompletions(root, p)
	addHelp(root)
	root.SetFlagErrorFunc(flagError)
	return root
}

func runIn(ctx context.Context, p process, args []string) int {
	out := &output{to: p.stdout}
	p.stdout = out
	root := newRoot(&p)
	root.SetArgs(idsLast(root, args))
	// Before a command runs, only a wrong command line can fail.
	status := 2
	root.PersistentPreRun = func(*cobra.Command, []string) { status = 1 }
	err := root.ExecuteContext(ctx)
	var e exit
	if lost := out.fault(); lost != nil && (err == nil || errors.As(err, &e) && e.err == nil) {
		status, err = 1, fmt.Errorf("the output was lost: %w", lost)
	}
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		status = e.status
		if e.err == nil {
			return status
		}
	}
	var wrong config.Faults
	if errors.As(err, &wrong) {
		fmt.Fprintf(p.stderr, "curfew: the configuration has %s\n%s\n", terminal.Count(len(wrong), "fault"), wrong)
		return 2
	}
	fmt.Fprintf(p.stderr, "curfew: %v\n", err)
	if status == 2 {
		fmt.Fprintln(p.stderr, "See curfew --help.")
	}
	return status
}

// chooseCommand runs a command that only has subcommands.
func chooseCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return exit{2, fmt.Errorf("%q is not a command of %s", args[0], cmd.CommandPath())}
}

// takes returns a check that a command has exactly these arguments.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return fmt.Errorf("%q is one argument too many: %s", args[len(names)], cmd.UseLine())
		}
		if i := slices.Index(args, ""); i >= 0 {
			return fmt.Errorf("%s is empty: %s", names[i], cmd.UseLine())
		}
		return nil
	}
}

// flagError says what is wrong with the value of a flag, and does not repeat it if it may be secret.
func flagError(_ *cobra.Command, err error) error {
	wrong, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	switch f := wrong.GetFlag(); f.Value.Type() {
	case "int":
		return fmt.Errorf("--%s: %q is not a whole number", f.Name, wrong.GetValue())
	case "bool":
		return fmt.Errorf("--%s: %q is neither true nor false", f.Name, wrong.GetValue())
	default:
		return fmt.Errorf("--%s: %w", f.Name, errors.Unwrap(wrong))
	}
}

// addHelp adds the commands for help and completion. Those of cobra take an unknown name for no error, and print help.
func addHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch help := cmd.Run; cmd.Name() {
		case "completion":
			cmd.Args, cmd.RunE = cobra.ArbitraryArgs, chooseCommand
		case "help":
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if about, rest, err := root.Find(args); err != nil || len(rest) > 0 {
					return chooseCommand(about, rest)
				}
				help(cmd, args)
				return nil
			}
		}
	}
}

func newVersionCmd(p *process) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of curfew and of Go",
		Args:  cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			fmt.Fprintf(p.stdout, "curfew %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// release is the version of a release, which its build sets.
var release = ""

// version returns the version of the release, that of the module, or the revision of the working tree.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision string
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value[:min(12, len(s.Value))]
		}
	}
	return cmp.Or(revision, "devel")
}
