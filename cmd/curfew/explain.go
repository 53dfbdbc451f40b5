package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/terminal"
	"example.com/curfew/oidc"
)

const maxTokenFile = 1 << 20

func newTokenCmd(p *process) *cobra.Command {
	token := &cobra.Command{
		Use:   "token",
		Short: "Look at tokens",
		Args:  cobra.ArbitraryArgs,
		RunE:  chooseCommand,
	}
	explain := &cobra.Command{
		Use:   "explain FILE|-",
		Short: "Show each step of the validation of a logout token",
		Long: `Reads a logout token from a file, or from the standard input, and shows each step of its validation:
passed or failed, and why. It accepts the bare token, or the body of its request (logout_token=…).

It needs the provider, so it reads the same configuration as serve, but can run on another machine. The token
itself is never printed; its claims are. It ends no session, and does not detect a replay.

The exit status is 0 if every step passed, 1 if one failed, 2 if the configuration is wrong.`,
		Example: `  curfew token explain token.txt --config curfew.yaml
  pbpaste | curfew token explain - --config curfew.yaml`,
		Args: takes("FILE"),
	}
	load := config.Flags(explain.Flags(), p.environ)
	explain.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		raw, err := p.readToken(args[0])
		if err != nil {
			return err
		}
		return p.explain(cmd.Context(), c, raw)
	}
	token.AddCommand(explain)
	return token
}

// readToken returns the token from a file, or from the standard input: the bare token, or a form.
func (p *process) readToken(name string) (string, error) {
	in := p.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxTokenFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxTokenFile {
		return "", fmt.Errorf("%s holds more than %d bytes: that is not a logout token", name, maxTokenFile)
	}
	raw := strings.TrimSpace(string(b))
	if strings.Contains(raw, "logout_token=") {
		form, err := url.ParseQuery(raw)
		if err != nil || len(form["logout_token"]) != 1 {
			return "", errors.New("want a valid form with one logout_token")
		}
		if raw = form.Get("logout_token"); raw == "" {
			return "", fmt.Errorf("the logout_token in %s is empty", name)
		}
	}
	if raw == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return raw, nil
}

func (p *process) explain(ctx context.Context, c *config.Config, raw string) error {
	providers, err := c.NewProviders()
	if err != nil {
		return err
	}
	steps := oidc.ExplainLogoutToken(ctx, providers, raw, time.Now())
	rows, failed := make([]terminal.Row, len(steps)), 0
	for i, s := range steps {
		rows[i] = terminal.Row{Status: s.Status, Name: s.Name, Detail: s.Detail}
		switch s.Status {
		case "ok":
		case "failed":
			rows[i].More = "see " + s.Section
			failed++
		default: // a step that was skipped
			failed++
		}
	}
	colours := p.painter()
	terminal.WriteRows(p.stdout, colours, "", rows)
	if claims := claimsOf(raw); claims != "" {
		fmt.Fprintf(p.stdout, "\nIts claims:\n%s\n", claims)
	}
	if failed > 0 {
		fmt.Fprintf(p.stdout, "\n%s: %s of %d did not pass\n",
			colours.Paint("failed", "refused"), terminal.Count(failed, "step"), len(steps))
		return exit{status: 1}
	}
	fmt.Fprintf(p.stdout, "\n%s: it would be carried out, unless it has been already\n",
		colours.Paint("ok", "accepted"))
	return nil
}

// claimsOf returns the claims of a signed token, indented, or "" if it is encrypted or malformed.
func claimsOf(raw string) string {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var out bytes.Buffer
	if json.Indent(&out, payload, "  ", "  ") != nil {
		return ""
	}
	shown := strings.Split(out.String(), "\n")
	for i, line := range shown {
		shown[i] = terminal.Printable(line)
	}
	return "  " + strings.Join(shown, "\n")
}
