package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/oauth2proxy"
)

func newImportCmd(p *process) *cobra.Command {
	parent := &cobra.Command{
		Use:   "import",
		Short: "Make a configuration from that of another program",
		Args:  cobra.ArbitraryArgs,
		RunE:  chooseCommand,
	}
	cmd := &cobra.Command{
		Use:   "oauth2-proxy [--write FILE] [--overwrite] [--config FILE] [options of oauth2-proxy]",
		Short: "Make curfew.yaml from a configuration of oauth2-proxy 7",
		Long: `Reads a configuration of oauth2-proxy as it does: its file (--config), its flags, OAUTH2_PROXY_* in the
environment, and its alpha configuration (--alpha-config). Writes a configuration of curfew, and says of each
setting what became of it: carried over, not needed, different, or not there.

Access is never widened: where a restriction cannot be expressed, nobody gets in until you
replace it. Secrets are not printed. A client secret goes into a file beside the configuration, a password of
Redis into an environment file.

  --write FILE   where to write the configuration (default curfew.yaml); - prints it, and writes no secrets
  --overwrite    replace files that exist

The exit status is 0 if the configuration was written and curfew can load it, 2 if it could not be made.`,
		Example: `  curfew import oauth2-proxy --config /etc/oauth2-proxy.cfg
  curfew import oauth2-proxy --config oauth2-proxy.cfg --redirect-url https://app.example.com/oauth2/callback`,
		DisableFlagParsing: true, // the flags are those of oauth2-proxy
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, overwrite := "curfew.yaml", false
		var theirs []string
		for i := 0; i < len(args); i++ {
			name, value, has := strings.Cut(args[i], "=")
			switch {
			case name == "--help" || name == "-h":
				return cmd.Help()
			case name == "--overwrite" && !has:
				overwrite = true
			case name == "--write" && has:
				out = value
			case name == "--write" && i+1 < len(args):
				i++
				out = args[i]
			default:
				theirs = append(theirs, args[i])
			}
		}
		if out == "" {
			return exit{2, errors.New("--write needs the name of a file")}
		}
		return p.importOAuth2Proxy(theirs, out, overwrite)
	}
	parent.AddCommand(cmd)
	return parent
}

func (p *process) importOAuth2Proxy(args []string, out string, overwrite bool) error {
	base := strings.TrimSuffix(out, filepath.Ext(out))
	if out == "-" {
		base = "curfew"
	}
	files := oauth2proxy.Files{Config: out, Secret: base + ".client-secret", Env: base + ".env"}
	made, err := oauth2proxy.Translate(args, p.environ, files)
	if err != nil {
		return err
	}
	report := p.stdout
	if out == "-" {
		report = p.stderr
		if _, err := p.stdout.Write(made.YAML); err != nil {
			return err
		}
	} else if err := writeImported(made, files, overwrite); err != nil {
		return err
	}
	if err := made.Report(report, p.painter()); err != nil {
		return err
	}
	if out == "-" {
		for name, secret := range map[string]string{files.Secret: made.Secret, files.Env: made.Env} {
			if secret != "" {
				fmt.Fprintf(report, "\nNot written: %s, which has a secret. Use --write FILE.\n", name)
			}
		}
		return nil
	}
	// What was written is what curfew is going to load: a file that the settings name may be missing on this machine.
	environ := strings.Fields(made.Env)
	if _, err := config.Load(map[string]string{"config": out}, environ); err != nil {
		fmt.Fprintf(report, "\nWritten: %s. On this machine curfew cannot load it yet:\n%v\n", out, err)
		return nil
	}
	fmt.Fprintf(report, "\nWritten: %s. Next: curfew check --config %s\n", out, out)
	if made.Env != "" {
		fmt.Fprintf(report, "Set the variables of %s in the environment of curfew.\n", files.Env)
	}
	return nil
}

// writeImported writes the files, or none: only their owner can read them.
func writeImported(made *oauth2proxy.Result, files oauth2proxy.Files, overwrite bool) error {
	contents := []struct {
		name string
		text []byte
	}{{files.Config, made.YAML}, {files.Secret, []byte(made.Secret)}, {files.Env, []byte(made.Env)}}
	contents = slices.DeleteFunc(contents, func(c struct {
		name string
		text []byte
	}) bool {
		return len(c.text) == 0
	})
	for _, c := range contents {
		if _, err := os.Lstat(c.name); err == nil && !overwrite {
			return exit{2, fmt.Errorf("%s exists; use --overwrite, or --write with another name", c.name)}
		}
	}
	for _, c := range contents {
		// A file that is there may be readable by others.
		if err := os.Remove(c.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := os.OpenFile(c.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if _, err := f.Write(c.text); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
